"""A bar on stderr for what takes a while."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def tracked(items: Iterable[T], description: str, total: int) -> Iterable[T]:
    """The items, with a bar while they are gone through; none where stderr is not a terminal."""
    from rich.console import Console
    from rich.progress import track

    errors = Console(stderr=True)
    return track(
        items,
        description=description,
        total=total,
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )
