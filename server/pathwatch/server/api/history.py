"""A run's history in brief, for answers that do not grow with the run."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from pathwatch.server.messages import stop_at_step
from pathwatch.server.store.interface import StoreReader
from pathwatch.server.store.rows import WindowRow
from pathwatch.v1 import signal_pb2

_SIGNALS = 1000
"""Read at once."""


def brief_history(
    store: StoreReader, run: str, groups: Sequence[str], *, after_step: int, points: int
) -> signal_pb2.GetMetricsResponse:
    """At most `points` (2 or more) windows of each group, as `StoreReader.thinned_history` chooses them.

    And at most as many signals, the newest of those that ask for something else than the one before, with
    the very newest. `after_step` -2 = all. Raises StoreError.
    """
    history = store.thinned_history(run, groups, points=points, after_step=after_step)
    if history is None:
        return signal_pb2.GetMetricsResponse(closed_step=-1)
    rows = [row for windows in history.windows.values() for row in windows]
    rows.sort(key=lambda row: (row.step, row.group))
    return signal_pb2.GetMetricsResponse(
        windows=map(to_message, rows),
        signals=deque(_telling(store, run, after_step), maxlen=points),
        closed_step=history.closed_step,
        stride=history.stride,
    )


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


def _telling(store: StoreReader, run: str, after_step: int) -> Iterator[signal_pb2.Signal]:
    """Signals after a step whose action or stop is new, and the newest."""
    said: tuple[int, int | None] | None = None
    repeated: signal_pb2.Signal | None = None
    first = store.history(run, after_step=after_step, limit=1, signal_limit=1).signals
    revision = first[0].revision - 1 if first else 0
    while rows := store.signals(run, after_revision=revision, limit=_SIGNALS) if first else ():
        revision = rows[-1].revision
        for row in rows:
            if row.step <= after_step:
                continue
            signal = signal_pb2.Signal.FromString(row.signal)
            asked = signal.action, stop_at_step(signal)
            if asked != said:
                yield signal
            said, repeated = asked, signal if asked == said else None
    if repeated is not None:
        yield repeated
