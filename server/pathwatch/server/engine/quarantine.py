"""Runs whose state in memory is not to be trusted, because something failed in the middle."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from pathwatch.server.engine.refusal import Code, RefusedError

log = logging.getLogger("pathwatch.server")

MAX_FAULTS = 3
"""After so many faults within `FAULT_SECONDS` a run is not taken up again before the server restarts."""
FAULT_SECONDS = 60.0


class Quarantine:
    """Used by the writer thread only."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` is a steady clock, in seconds."""
        self.hit: dict[str, RefusedError] = {}
        """Runs that are to be taken up again from the store, and what whoever waits for them hears."""
        self.closed: dict[str, RefusedError] = {}
        """Runs that are not taken up again before the server restarts, and what is said of them."""
        self._waiting: dict[str, float] = {}
        """Of those that were hit, the ones that could not be read, and when that was tried."""
        self._now = now
        self._faults: dict[str, deque[float]] = {}

    def check(self, run: str) -> None:
        """Raises RefusedError where nothing may be done to the run."""
        refusal = self.hit.get(run) or self.closed.get(run)
        if refusal is not None:
            raise refusal

    def holds(self, run: str) -> bool:
        """Whether the run is there, though nobody has it in hand."""
        return run in self.hit or run in self.closed

    def interrupted(self, run: str) -> None:
        """A change to the run failed in the middle: what is not acknowledged is to come again."""
        self.hit[run] = RefusedError(
            Code.UNAVAILABLE,
            f"a fault of the service: run {run!r} is taken up again from what is stored; "
            "send again what is not acknowledged",
        )

    def unstorable(self, run: str, error: Exception) -> None:
        """What the run has become cannot be stored."""
        log.error(
            "run %r: what changed since the last commit can never be stored",
            run,
            exc_info=error,
            extra={"run": run},
        )
        self.hit[run] = RefusedError(
            Code.INTERNAL,
            f"a fault of the service: what changed of run {run!r} cannot be stored, and is dropped: {error}",
        )

    def may_go_on(self, run: str) -> bool:
        """Whether a run that was hit is to be taken up again; counts the fault."""
        faults = self._faults.setdefault(run, deque(maxlen=MAX_FAULTS))
        if run not in self._waiting:
            faults.append(self._now())
        return len(faults) < MAX_FAULTS or faults[-1] - faults[0] > FAULT_SECONDS

    def due(self, seconds: float) -> list[tuple[str, RefusedError]]:
        """Of those that were hit, the ones that could not be read less than `seconds` ago left out."""
        limit = self._now() - seconds
        return [(run, hit) for run, hit in self.hit.items() if self._waiting.get(run, limit) <= limit]

    def wait(self, run: str, error: Exception) -> None:
        """The run, which was hit, cannot be read from the store just now."""
        if run not in self._waiting:
            log.error("run %r cannot be taken up again yet: %s", run, error, extra={"run": run})
        self._waiting[run] = self._now()

    def settled(self, run: str) -> None:
        """The run, which was hit, is taken up again, closed, or gone."""
        del self.hit[run]
        self._waiting.pop(run, None)

    def close(self, run: str, why: str) -> None:
        """The run is left as it is stored."""
        log.error("run %r takes nothing before the server is restarted: %s", run, why, extra={"run": run})
        self.closed[run] = RefusedError(
            Code.INTERNAL, f"run {run!r} takes nothing before the server is restarted: {why}"
        )

    def forget(self, run: str) -> None:
        """The run is deleted."""
        self.closed.pop(run, None)
        self._faults.pop(run, None)

    def release(self, run: str) -> None:
        """The run is another server's now, whose faults are its own."""
        self.forget(run)
        self.hit.pop(run, None)
        self._waiting.pop(run, None)
