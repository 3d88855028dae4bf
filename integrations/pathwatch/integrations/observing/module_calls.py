"""Standing between a module and those that call it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from torch import nn

Call: TypeAlias = Callable[..., Any]


class ModuleCalls:
    """Passes the calls of a module through `around(call, args, kwargs, own)` while `open`, until closed.

    `own` are the keywords that are not the module's: taken out here, before compiled code could see them and
    be compiled anew for every value.

    Takes the place of the module's compiled call, which PyTorch prefers to its own: outside of all hooks and
    of what `Module.compile` makes of them, seeing exceptions, and left behind when the module is copied or
    pickled.
    """

    def __init__(
        self,
        module: nn.Module,
        around: Callable[[Call, tuple[Any, ...], dict[str, Any], dict[str, Any]], Any],
        own_keywords: Sequence[str],
    ) -> None:
        self._module = module
        self._compiled: Call | None = None
        self.open = False

        def called(*args: Any, **kwargs: Any) -> Any:
            call = self._compiled or module._call_impl
            own = {name: kwargs.pop(name) for name in own_keywords if name in kwargs} if own_keywords else {}
            return around(call, args, kwargs, own) if self.open else call(*args, **kwargs)

        self._called = called
        self.place()

    def place(self) -> None:
        """Stand there; again, if the module was compiled since."""
        present = self._module._compiled_call_impl
        if present is not self._called:
            self._compiled = present
            self._module._compiled_call_impl = self._called

    def close(self) -> None:
        """Leave the module as it was."""
        if self._module._compiled_call_impl is self._called:
            self._module._compiled_call_impl = self._compiled
