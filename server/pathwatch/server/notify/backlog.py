"""What a webhook is still to be told, read from the store piece by piece: nothing is lost, little is held."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from pathwatch.server.changes.diff import Change
from pathwatch.server.changes.reading import changes_by_revision
from pathwatch.server.engine.engine import Engine
from pathwatch.server.engine.view import RunView
from pathwatch.server.notify.positions import Position, Positions
from pathwatch.server.store.interface import StoreError, StoreReader

log = logging.getLogger("pathwatch.server")

MOST_HELD = 1000
"""Changes; with so many at hand, no more are read."""
MOST_READ = 200
"""Signals read at a time."""


@dataclass(slots=True)
class Pending:
    """A change to be told of."""

    change: Change
    after: Position
    """Where its run stands once it is settled."""
    known_at: float
    """When it was read, by the steady clock."""


class Backlog:
    """Of one webhook. All but `notify` and `close` is for one thread."""

    def __init__(self, engine: Engine, store: StoreReader, positions: Positions) -> None:
        """A webhook of which nothing is known hears of what changes from now on."""
        self._engine = engine
        self._store = store
        self._positions = positions
        self._queue: deque[Pending] = deque()
        self._last: dict[str, Pending] = {}
        """The newest of each run in the queue."""
        self._read_to: dict[str, Position] = {}
        self._lock = threading.Lock()
        views = engine.views
        self._changed = set(views)
        self._failing = False
        if positions.is_new:
            for run, view in views.items():
                positions.set(run, Position(_created(view), view.last_signal.revision))
            positions.save()

    def __len__(self) -> int:
        return len(self._queue)

    def notify(self, run: str) -> None:
        """Something about the run may have changed, or it is gone. From any thread, at once."""
        with self._lock:
            self._changed.add(run)

    def fill(self, is_wanted: Callable[[Change], bool], now: float) -> bool:
        """Read what is new, as far as there is room. False where the store cannot be read for the moment."""
        with self._lock:
            changed, self._changed = self._changed, set()
        again = {run for run in sorted(changed) if not self._fill(run, is_wanted, now)}
        with self._lock:
            self._changed |= again
        return not (again and len(self._queue) < MOST_HELD)

    def peek(self, count: int) -> Sequence[Pending]:
        """The oldest ones, at most `count`."""
        return list(islice(self._queue, count))

    def settle(self, count: int) -> None:
        """The oldest `count` are delivered or given up; remembered for good."""
        for _ in range(count):
            pending = self._queue.popleft()
            run = pending.change.run
            if self._last.get(run) is pending:
                del self._last[run]
            self._remember(run, pending.after)
        self._positions.save()

    def keep(self, is_wanted: Callable[[Change], bool]) -> None:
        """Leave out of the queue what is not wanted any more; what is left keeps its order."""
        queue, self._queue, self._last = self._queue, deque(), {}
        for pending in queue:
            run = pending.change.run
            last = self._last.get(run)
            if is_wanted(pending.change):
                self._queue.append(pending)
                self._last[run] = pending
            elif last is not None and last.after.created == pending.after.created:
                last.after = pending.after
            else:
                self._remember(run, pending.after)
        self._positions.save()

    def save(self) -> None:
        """Remember what was found not to be wanted, too."""
        self._positions.save()

    def close(self) -> None:
        """Remember nothing more, once this has returned. From any thread."""
        self._positions.close()

    def _fill(self, run: str, is_wanted: Callable[[Change], bool], now: float) -> bool:
        """Whether the run needs no more reading."""
        while len(self._queue) < MOST_HELD:
            view = self._engine.views.get(run)
            if view is None:
                self._positions.drop(run)
                self._read_to.pop(run, None)
                return True
            at = self._read_to.get(run)
            if at is None or at.created != _created(view):
                at = self._positions.get(run, _created(view))
            if at.revision < view.inherited_revision:  # the server that had the run before has told of these
                at = Position(at.created, view.inherited_revision)
                self._advance(run, at)
            if view.last_signal.revision < at.revision:  # an older snapshot of the store was put back
                log.warning(
                    "run %r is at an earlier signal than webhooks were told of", run, extra={"run": run}
                )
                at = Position(at.created, view.last_signal.revision)
                self._advance(run, at)
            if view.last_signal.revision == at.revision:
                return True
            if not self._read(run, at, is_wanted, now):
                return False
        return False

    def _read(self, run: str, at: Position, is_wanted: Callable[[Change], bool], now: float) -> bool:
        """Queue what the next signals changed. False where they are not to be had for the moment."""
        try:
            rows = self._store.signals(run, after_revision=at.revision - 1, limit=MOST_READ)
        except StoreError as error:
            if not self._failing:
                log.warning("webhooks cannot be told of run %r yet: %s", run, error, extra={"run": run})
            self._failing = True
            return False
        self._failing = False
        view = self._engine.views.get(run)
        # Deleted meanwhile, perhaps made anew: what was read may be of either.
        if view is None or _created(view) != at.created:
            return False
        known = 1 if at.revision else 0  # of the rows, the one that the next is compared with
        if len(rows) <= known or rows[0].revision != at.revision + 1 - known:
            return False
        for revision, changes in changes_by_revision(rows, at.revision):
            settled = at.changes if revision == at.revision + 1 else 0
            for number, change in enumerate(changes[settled:], start=settled + 1):
                if is_wanted(change):
                    pending = Pending(change, Position(at.created, revision - 1, number), now)
                    self._queue.append(pending)
                    self._last[run] = pending
            self._advance(run, Position(at.created, revision))
        return True

    def _remember(self, run: str, position: Position) -> None:
        """Unless the run is gone, and another perhaps there under its name."""
        view = self._engine.views.get(run)
        if view is not None and _created(view) == position.created:
            self._positions.set(run, position)

    def _advance(self, run: str, to: Position) -> None:
        """All changes up to there are in the queue, or not wanted."""
        self._read_to[run] = to
        last = self._last.get(run)
        if last is not None and last.after.created == to.created:
            last.after = to
        else:
            self._positions.set(run, to)


def _created(view: RunView) -> int:
    return view.run.created_at.ToMicroseconds()
