"""The runs that the writer thread has in hand."""

from __future__ import annotations

import logging
from collections.abc import Collection

from pathwatch.server.engine.live_run import LiveRun
from pathwatch.server.engine.quarantine import Quarantine
from pathwatch.server.engine.recovery import recover
from pathwatch.server.engine.refusal import RefusedError
from pathwatch.server.engine.shared import Shared
from pathwatch.server.store.interface import DamagedError, StoreError
from pathwatch.server.store.rows import RunRow

log = logging.getLogger("pathwatch.server")


class RunsInHand:
    """Used by the writer thread, and by whoever starts and stops it."""

    def __init__(self, shared: Shared) -> None:
        self.live: dict[str, LiveRun] = {}
        self.quarantine = Quarantine(shared.clock.steady)
        self._shared = shared
        self._inherited: dict[str, int] = {}
        """Of runs that others had before: the newest revision then, which they have told of."""

    def take_up_all(self) -> None:
        """Everything that is stored. Raises StoreError."""
        for row in self._shared.store.runs():
            self._recover(row)

    def take_up(self, name: str) -> LiveRun | None:
        """A run that another server had, as it is stored; None = there is none. Raises StoreError."""
        row = self._row(name)
        if row is None:
            return None
        run = self._recover(row)
        self._inherited[name] = run.inherited_revision = run.standing.signal.revision
        return run

    def get(self, name: str) -> LiveRun | None:
        """The run, where it is in hand. Raises RefusedError where nothing may be done to it."""
        self.quarantine.check(name)
        return self.live.get(name)

    def trusted(self) -> list[tuple[str, LiveRun]]:
        """Those whose state is as it should be."""
        return [(name, run) for name, run in self.live.items() if name not in self.quarantine.hit]

    def surplus(self, busy: Collection[str]) -> list[str]:
        """Finished runs, none of `busy`, without which there is room for one more: updated longest ago."""
        excess = len(self.live) + 1 - self._shared.limits.runs
        if excess <= 0:
            return []
        over = [run.row for name, run in self.trusted() if run.is_over and name not in busy]
        return [row.name for row in sorted(over, key=lambda row: row.updated_at)[:excess]]

    def drop(self, name: str, refusal: RefusedError) -> None:
        """Let go of the run, if it is in hand; whoever waits for it hears why."""
        self._drop(name, refusal)
        self._inherited.pop(name, None)

    def has(self, name: str) -> bool:
        """Whether it is in hand, or is there though nothing may be done to it."""
        return name in self.live or self.quarantine.holds(name)

    def _drop(self, name: str, refusal: RefusedError) -> None:
        if run := self.live.pop(name, None):
            run.drop(refusal)
        self._shared.kept.set(name, 0)

    def take_up_again(self, seconds: float) -> set[str]:
        """Runs that were hit, as at a start; the runs that are there again.

        Those that could not be read less than `seconds` ago are left for later.
        """
        again = set()
        for name, refusal in self.quarantine.due(seconds):
            self._drop(name, refusal)
            try:
                row = self._row(name)
                if row is None:
                    pass
                elif self.quarantine.may_go_on(name):
                    self._recover(row)
                    again.add(name)
                    log.warning("run %r is taken up again from the store", name, extra={"run": name})
                else:
                    self.quarantine.close(name, "a fault of the service came again and again")
            except Exception as error:
                if isinstance(error, StoreError) and not isinstance(error, DamagedError):
                    self.quarantine.wait(name, error)
                    continue
                log.exception("run %r cannot be taken up again", name, extra={"run": name})
                self.quarantine.close(name, str(error))
            self.quarantine.settled(name)
        return again

    def close(self) -> None:
        """End the plug-ins that runs have in processes of their own."""
        for run in self.live.values():
            run.judging.close()

    def _row(self, name: str) -> RunRow | None:
        self._shared.store.take_up(name)
        return self._shared.store.run(name)

    def _recover(self, row: RunRow) -> LiveRun:
        run = self.live[row.name] = recover(row, self._shared)
        run.inherited_revision = self._inherited.get(row.name, 0)
        return run
