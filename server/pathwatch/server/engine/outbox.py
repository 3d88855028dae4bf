"""What the writer thread has decided and not yet made durable."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from pathwatch.server.store.rows import Write, run_of

T = TypeVar("T")


@dataclass(slots=True)
class Outbox:
    """Writes of the next commit, and what may happen only after it."""

    writes: list[Write] = field(default_factory=list)
    effects: list[Callable[[], None]] = field(default_factory=list)

    def forget(self, run: str) -> None:
        """Nothing of the run is to be written any more. What was to happen after it is told so by the run."""
        self.writes[:] = [write for write in self.writes if run_of(write) != run]


def settle(future: Future[T], value: T | Exception) -> None:
    """Give a waiting caller its answer, unless it has left."""
    if future.set_running_or_notify_cancel():
        if isinstance(value, Exception):
            future.set_exception(value)
        else:
            future.set_result(value)
