"""The changes that stored signals tell of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from pathwatch.server.changes.diff import Change, changes
from pathwatch.server.store.rows import SignalRow
from pathwatch.v1 import signal_pb2


def changes_by_revision(rows: Sequence[SignalRow], seen: int) -> Iterator[tuple[int, list[Change]]]:
    """Each revision after `seen` with what it changed, oldest first.

    The rows are a run's signals from revision `seen` on, which the next is compared with; 0 = from its first.
    """
    signals: list[signal_pb2.Signal | None] = [signal_pb2.Signal.FromString(row.signal) for row in rows]
    if seen == 0:
        signals.insert(0, None)
    for before, after in pairwise(signals):
        if after is not None:
            yield after.revision, list(changes(before, after))
