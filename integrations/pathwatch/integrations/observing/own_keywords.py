"""Keywords of a forward call that are meant for us."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn


class _Without:
    """A forward pre-hook that takes keywords away; an object, so that the module can still be pickled."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(names)

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, {name: value for name, value in kwargs.items() if name not in self.names}


def without_keywords(module: nn.Module, names: Sequence[str]) -> Callable[[], None]:
    """Keep keywords from a module's forward, before any other hook sees them; returns what undoes it."""
    if not names:
        return lambda: None
    handle = module.register_forward_pre_hook(_Without(names), with_kwargs=True, prepend=True)

    def undo() -> None:
        handle.remove()

    return undo
