"""Standing between a module and those that call it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import nn

Call: TypeAlias = Callable[..., Any]


class ModuleCalls:
    """Passes the calls of a module through `around(call, args, kwargs)` while `open`, until closed.

    Takes the place of the module's compiled call, which PyTorch prefers to its own: outside of all hooks and
    of what `Module.compile` makes of them, seeing exceptions, and left behind when the module is copied or
    pickled.
    """

    def __init__(
        self, module: nn.Module, around: Callable[[Call, tuple[Any, ...], dict[str, Any]], Any]
    ) -> None:
        self._module = module
        self._compiled: Call | None = None
        self.open = False

        def called(*args: Any, **kwargs: Any) -> Any:
            call = self._compiled or module._call_impl
            return around(call, args, kwargs) if self.open else call(*args, **kwargs)

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
