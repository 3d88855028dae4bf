"""A run's history in brief, for answers that do not grow with the run."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Sequence

from pathwatch.server.messages import stop_at_step
from pathwatch.server.store.interface import StoreReader
from pathwatch.server.store.rows import WindowRow
from pathwatch.v1 import run_pb2, signal_pb2

_AT_ONCE = 1000
"""Signals that are read together."""
_TOLD = 1000
"""Signals that an answer holds at most."""
_RUNS = 64
"""Runs whose signals need not be read again."""


class BriefHistory:
    """Used from any thread. Signals are read once: all of a long run's take a second."""

    def __init__(self, store: StoreReader) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, int], _Told] = OrderedDict()

    def read(
        self, run: run_pb2.Run, groups: Sequence[str], *, after_step: int, points: int
    ) -> signal_pb2.GetMetricsResponse:
        """At most `points` (2 or more) windows of each group, as `StoreReader.thinned_history` chooses them.

        And at most as many signals, the newest of those that ask for something else than the one before, with
        the very newest. `after_step` -2 = all. Raises StoreError.
        """
        history = self._store.thinned_history(run.name, groups, points=points, after_step=after_step)
        if history is None:
            return signal_pb2.GetMetricsResponse(closed_step=-1)
        rows = [row for windows in history.windows.values() for row in windows]
        rows.sort(key=lambda row: (row.step, row.group))
        return signal_pb2.GetMetricsResponse(
            windows=map(to_message, rows),
            signals=self._signals(run, after_step)[-points:],
            closed_step=history.closed_step,
            stride=history.stride,
        )

    def _signals(self, run: run_pb2.Run, after_step: int) -> list[signal_pb2.Signal]:
        if after_step <= -2:
            with (told := self._told(run)).lock:
                told.read_on(self._store, run.name, after_step)
                return told.signals
        rows = self._store.history(run.name, after_step=after_step, limit=1, signal_limit=1).signals
        if not rows:
            return []
        first = signal_pb2.Signal.FromString(rows[0].signal)
        with (told := self._told(run)).lock:
            told.read_on(self._store, run.name, -2)
            if (since := told.since(first, after_step)) is not None:
                return since
        anew = _Told(first.revision - 1)  # the run was rewound meanwhile to what is not wanted
        anew.read_on(self._store, run.name, after_step)
        return anew.signals

    def _told(self, run: run_pb2.Run) -> _Told:
        with self._lock:
            key = run.name, run.created_at.ToNanoseconds()
            told = self._known.setdefault(key, _Told(0))
            self._known.move_to_end(key)
            while len(self._known) > _RUNS:
                self._known.popitem(last=False)
            return told


def to_message(row: WindowRow) -> signal_pb2.Window:
    """A window as callers get it."""
    return signal_pb2.Window(
        group=row.group,
        attempt=row.attempt,
        first_step=row.first_step,
        step=row.step,
        phase=signal_pb2.Phase.ValueType(row.phase),
        metrics=row.metrics,
        partial=row.partial,
        layer_path_distance=row.layer_path_distance,
        reason=row.reason,
    )


class _Told:
    """What signals after a revision have asked for."""

    def __init__(self, revision: int) -> None:
        self.lock = threading.Lock()
        self._revision = revision
        self._changes: deque[signal_pb2.Signal] = deque(maxlen=_TOLD)
        """Those whose action or stop is not that of the one before."""
        self._newest: signal_pb2.Signal | None = None
        self._falls: list[tuple[int, int]] = []
        """Revision and step of signals whose step is below that of the one before: the run was rewound."""

    @property
    def signals(self) -> list[signal_pb2.Signal]:
        """The changes, and the newest signal."""
        if self._newest is None:
            return []
        repeats = self._changes[-1].revision != self._newest.revision
        return [*self._changes, self._newest] if repeats else list(self._changes)

    def since(self, first: signal_pb2.Signal, after_step: int) -> list[signal_pb2.Signal] | None:
        """`signals` of those from `first` on; None = not all of these are of steps above `after_step`."""
        newest = self._newest
        fell = any(revision > first.revision and step <= after_step for revision, step in self._falls)
        if newest is None or newest.revision < first.revision or fell:
            return None
        later = [signal for signal in self._changes if signal.revision > first.revision]
        told = [first, *later][-_TOLD:]
        return [*told, newest] if told[-1].revision != newest.revision else told

    def read_on(self, store: StoreReader, run: str, after_step: int) -> None:
        """Take in what came since, of steps above `after_step`. Raises StoreError."""
        while rows := store.signals(run, after_revision=self._revision, limit=_AT_ONCE):
            for row in rows:
                if row.step > after_step:
                    self._take(signal_pb2.Signal.FromString(row.signal))
                self._revision = row.revision

    def _take(self, signal: signal_pb2.Signal) -> None:
        before = self._newest
        asked = signal.action, stop_at_step(signal)
        if before is None or asked != (before.action, stop_at_step(before)):
            self._changes.append(signal)
        if before is not None and signal.step < before.step:
            self._falls.append((signal.revision, signal.step))
        self._newest = signal
