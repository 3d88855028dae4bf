"""What was decided when, and why: signals in, events out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from pathwatch.server.changes.diff import ActionChange, BestCheckpointChange, Change, PhaseChange, changes
from pathwatch.server.statuspage.documents import VERSION
from pathwatch.server.statuspage.values import JsonObject, numbers, time_text
from pathwatch.server.store.rows import SignalRow
from pathwatch.v1 import signal_pb2

EVENTS = 2000
"""The newest ones that are told."""


def events_document(run: str, rows: Sequence[SignalRow], after_revision: int) -> JsonObject:
    """Events of the signals after `after_revision`; the first row is the one that they are compared with,
    unless it is a run's first signal of all."""
    events = [_event(change) for change in _changes(rows)]
    return {
        "version": VERSION,
        "run": run,
        "revision": rows[-1].revision if rows else after_revision,
        "events": events[-EVENTS:],
    }


def _changes(rows: Sequence[SignalRow]) -> Iterator[Change]:
    signals: list[signal_pb2.Signal | None] = [signal_pb2.Signal.FromString(row.signal) for row in rows]
    if rows and rows[0].revision == 1:
        signals.insert(0, None)
    for before, after in pairwise(signals):
        if after is not None:
            yield from changes(before, after)


def _event(change: Change) -> JsonObject:
    event: JsonObject = {
        "revision": change.revision,
        "at": time_text(change.at),
        "step": change.step,
        "kind": "",
        "group": None,
        "before": change.before,
        "after": change.after,
        "reason": None,
        "evidence": {},
        "stop_at_step": None,
    }
    match change:
        case PhaseChange():
            evidence = numbers(change.evidence)
            return event | {
                "kind": "phase",
                "group": change.group,
                "reason": change.reason,
                "evidence": evidence,
            }
        case ActionChange():
            return event | {"kind": "action", "reason": change.reason, "stop_at_step": change.stop_at_step}
        case BestCheckpointChange():
            return event | {"kind": "checkpoint", "group": change.group or None}
