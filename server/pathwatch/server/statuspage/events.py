"""What was decided when, and why: signals in, events out."""

from __future__ import annotations

from collections.abc import Sequence

from pathwatch.server.changes.diff import ActionChange, BestCheckpointChange, Change, PhaseChange
from pathwatch.server.changes.reading import changes_by_revision
from pathwatch.server.statuspage.documents import VERSION
from pathwatch.server.statuspage.values import JsonObject, numbers, time_text
from pathwatch.server.store.rows import SignalRow

EVENTS = 2000
"""Phases and actions that are told, the newest ones."""
CHECKPOINT_EVENTS = 500
"""Best checkpoints that are told: they change in most rounds, and are not to push out the others."""


def events_document(run: str, rows: Sequence[SignalRow], seen: int) -> JsonObject:
    """Events of the signals after revision `seen`; arguments as of `changes_by_revision`, a row at least."""
    events = [_event(change) for _, told in changes_by_revision(rows, seen) for change in told]
    return {
        "version": VERSION,
        "run": run,
        "revision": rows[-1].revision,
        "events": _newest(events),
    }


def _newest(events: Sequence[JsonObject]) -> list[JsonObject]:
    left = {True: CHECKPOINT_EVENTS, False: EVENTS}
    kept = []
    for event in reversed(events):
        is_checkpoint = event["kind"] == "checkpoint"
        left[is_checkpoint] -= 1
        if left[is_checkpoint] >= 0:
            kept.append(event)
    return kept[::-1]


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
