"""Whose code the main thread runs, and for how long."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Literal, TypeAlias

_Owner: TypeAlias = Literal["own", "whole", "theirs", "caller"]

WHOLE = {("pathwatch.integrations.observing.watch", "begin")} | {
    ("pathwatch.integrations.observing.watch", "after_step")
}
"""Functions charged for all they do, the model's forward pass in them included: they read the probe."""
THEIRS_ANYWAY = {("torch.nn.functional", "log_softmax"), ("torch.nn.functional", "nll_loss")}
"""The model's own loss, which stream mode lets run in these two halves."""


def is_of(module: str, package: str) -> bool:
    """Whether a module is the package or in it."""
    return module == package or module.startswith(f"{package}.")


class Attribution:
    """Adds up the time in which this thread runs the code of a package, as a profiler.

    PyTorch, Python's own library, NumPy and the like work for whoever called them; calling a module, or code
    of any other package, is that one's. The time that profiling takes itself is left out, but for some 0.1 µs
    per call.
    """

    def __init__(self, package: str) -> None:
        self.seconds = 0.0
        self._package = package
        # By identity, kept alive: code of different modules may be equal.
        self._owners: dict[int, tuple[_Owner, CodeType]] = {}
        self._stack: list[tuple[bool, bool]] = []
        self._own = self._whole = False
        self._since = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Profile this thread inside the block."""
        sys.setprofile(self._event)
        try:
            yield
        finally:
            sys.setprofile(None)

    def _event(self, frame: FrameType, event: str, argument: object) -> None:
        if self._own:
            self.seconds += time.perf_counter() - self._since
        if event == "call":
            self._stack.append((self._own, self._whole))
            known = self._owners.get(id(frame.f_code))
            owner = known[0] if known else self._owner(frame)
            if not self._whole and owner != "caller":
                self._own, self._whole = owner != "theirs", owner == "whole"
        elif event == "return" and self._stack:
            self._own, self._whole = self._stack.pop()
        self._since = time.perf_counter()

    def _owner(self, frame: FrameType) -> _Owner:
        module, name = str(frame.f_globals.get("__name__")), frame.f_code.co_name
        top = module.partition(".")[0]
        owner: _Owner
        if is_of(module, self._package):
            owner = "whole" if (module, name) in WHOLE else "own"
        elif (module, name) in THEIRS_ANYWAY or module == "torch.nn.modules.module":
            owner = "theirs"
        elif top in _WORKERS:
            owner = "caller"
        else:
            owner = "theirs"
        self._owners[id(frame.f_code)] = owner, frame.f_code
        return owner


_WORKERS = sys.stdlib_module_names - {"__main__"} | {"torch", "numpy", "google", "grpc"}
