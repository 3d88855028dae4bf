"""Runs of a store that several servers share: taken up where they are nobody's, given up where lost."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from pathwatch.server.engine.in_hand import RunsInHand
from pathwatch.server.engine.live_run import LiveRun
from pathwatch.server.engine.refusal import Code, MovedError, RefusedError
from pathwatch.server.engine.shared import Shared
from pathwatch.server.store.interface import DamagedError, StoreError
from pathwatch.server.store.leases import Held, Leases

log = logging.getLogger("pathwatch.server")

RETRY_SECONDS = 1.0
"""How long after the store could not be asked it is not asked again: each try may hold the writer up."""
MOST_KNOWN = 10_000
"""Names that are remembered to be runs."""


class Adoption:
    """Used by the writer thread, and by whoever stops it."""

    def __init__(self, runs: RunsInHand, shared: Shared, leases: Leases) -> None:
        self.lost: dict[str, MovedError] = {}
        """Runs that went to another server since the last commit, and what is said of that."""
        self._runs = runs
        self._shared = shared
        self._leases = leases
        self._known: set[str] = set()
        """Names that were runs when they were last looked for: their lease is asked for first."""
        self._epochs: dict[str, int | None] = {}
        """Of the runs that were taken; of one that is lost until that is said."""
        self._deleted: dict[str, float] = {}
        """When runs were deleted whose lease is held, on the steady clock; infinite = not stored yet."""
        self._has_taken = False
        self._failed_at: float | None = None
        """When the store could not be asked, on the steady clock; None = it could."""

    def adopt(self, name: str) -> LiveRun | None:
        """The run, from now on this server's; None = there is none, and the name stays nobody's.

        Raises MovedError where another server has it, else RefusedError where it cannot be had just now.
        """
        if self._deleted.get(name) == math.inf:
            return None
        with self._asking(name):
            # A name that is no run costs a read; a run that is another's nothing: leases know it for a while.
            if name not in self._known and not self._is_stored(name):
                return None
            run = self._take(name)
            if run is None:
                self._known.discard(name)
                self._let_go([name])
            return run

    def begin(self, name: str) -> LiveRun | None:
        """The name is this server's from now on; the run, if there is one of that name after all.

        Raises as `adopt` does.
        """
        if self._deleted.get(name) == math.inf:
            return None
        with self._asking(name):
            return self._take(name)

    def renewed(self, lost: Mapping[str, Held]) -> set[str]:
        """All leases were renewed, but those that are lost. The runs that are not in hand any more."""
        # One may have been taken anew meanwhile.
        gone = {name: held for name, held in lost.items() if name not in self._leases.held}
        for name, held in gone.items():
            if self._runs.has(name) or name in self._deleted:
                self._lose(name, held.owner)
            else:  # a write was refused before, or it could not be taken up
                self._shared.store.let_go(name)
                self._epochs.pop(name, None)
        self._release_unused()
        return set(gone)

    def fenced(self, name: str, owner: str) -> None:
        """The store has refused what was made of the run, for another has it; empty = not known who."""
        self._release(name)
        self._lose(name, owner)

    def make_room(self, busy: Collection[str]) -> list[str]:
        """Let go of finished runs, none of `busy`, where there are as many as may be; gives their names."""
        going = self._runs.surplus(busy)
        for name in going:
            self._runs.drop(name, RefusedError(Code.UNAVAILABLE, f"run {name!r} is let go of; try again"))
        self._let_go(going)
        return going

    def has_taken(self) -> bool:
        """Whether a run was taken up since this was asked last."""
        has_taken, self._has_taken = self._has_taken, False
        return has_taken

    def deleting(self, name: str) -> None:
        """The run is not there any more, whatever is stored of it for the moment."""
        self._known.discard(name)
        self._deleted[name] = math.inf

    def deleted(self, name: str) -> None:
        """What was to be deleted is, or is not: the store knows. The lease is kept for a while:
        a store that fails over may lose the deletion, and is to be told again."""
        if name in self._deleted:
            self._deleted[name] = self._shared.clock.steady()

    def release_all(self) -> None:
        """Others may have all runs from now on."""
        if held := sorted(self._leases.held):
            self._release(*held)
            log.info("%d runs are let go of", len(held), extra={"runs": held})

    def _is_stored(self, name: str) -> bool:
        """Whether there is a run; one that cannot be read is left as it is by whoever has its lease."""
        try:
            return self._shared.store.run(name) is not None
        except DamagedError:
            return True

    def _take(self, name: str) -> LiveRun | None:
        if (held := self._leases.take(name)) is not None:
            self._know(name)
            raise MovedError(name, held.owner)
        self._deleted.pop(name, None)
        self._epochs[name] = epoch = self._leases.epoch(name)
        if (run := self._runs.take_up(name)) is not None:
            self._know(name)
            self._has_taken = True
            log.info("run %r is taken up", name, extra={"run": name, "step": run.row.step, "epoch": epoch})
        return run

    def _know(self, name: str) -> None:
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known.add(name)

    def _lose(self, name: str, owner: str) -> None:
        self.lost[name] = moved = MovedError(name, owner)
        self._runs.drop(name, moved)
        self._runs.quarantine.release(name)
        self._shared.outbox.forget(name)
        self._shared.store.let_go(name)
        self._deleted.pop(name, None)
        self._shared.stats.lease_losses += 1
        words = "run %r is lost to %s: nothing of it is written here any more"
        fields = {"run": name, "owner": owner, "epoch": self._epochs.pop(name, None)}
        log.warning(words, name, owner or "another server", extra=fields)

    def _release_unused(self) -> None:
        """Names whose run was deleted a while ago, could not be taken up, or was never stored."""
        limit = self._shared.clock.steady() - self._leases.seconds
        self._deleted = {name: at for name, at in self._deleted.items() if at > limit}
        unused = [
            name for name in self._leases.held if name not in self._deleted and not self._runs.has(name)
        ]
        self._let_go(unused)

    def _let_go(self, names: Collection[str]) -> None:
        if names:
            self._release(*names)
        for name in names:
            self._shared.store.let_go(name)
            self._epochs.pop(name, None)

    def _release(self, *names: str) -> None:
        try:
            self._leases.release(names)
        except StoreError as error:
            log.warning("leases cannot be let go of, and run out: %s", error)

    @contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        now = self._shared.clock.steady()
        if self._failed_at is not None and now - self._failed_at < RETRY_SECONDS:
            raise _away(name)
        try:
            yield
        except DamagedError as error:
            self._runs.quarantine.close(name, str(error))
            raise self._runs.quarantine.closed[name] from error
        except StoreError as error:
            if self._failed_at is None:
                log.error("runs cannot be taken up, and are tried again: %s", error)
            self._failed_at = self._shared.clock.steady()
            raise _away(name) from error
        else:
            self._failed_at = None


def _away(name: str) -> RefusedError:
    return RefusedError(
        Code.UNAVAILABLE, f"run {name!r} cannot be looked for: the store does not answer; try again"
    )
