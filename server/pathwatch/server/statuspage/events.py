"""What was decided when, and why: signals in, events out."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from pathwatch.server.changes.diff import ActionChange, BestCheckpointChange, Change, PhaseChange
from pathwatch.server.changes.reading import changes_by_revision, is_readable
from pathwatch.server.statuspage.documents import VERSION
from pathwatch.server.statuspage.values import JsonObject, numbers, time_text
from pathwatch.server.store.interface import StoreReader
from pathwatch.server.store.rows import SignalRow

MAX_SIGNALS = 4000
"""The newest ones that are looked through for events."""
EVENTS = 2000
"""Phases and actions that are told, the newest ones."""
CHECKPOINT_EVENTS = 500
"""Best checkpoints that are told: they change in most rounds, and are not to push out the others."""
_RUNS = 32
"""Runs whose events are kept."""


class Events:
    """Used from any thread. What was told of a run's newest signals is kept: to read thousands takes long."""

    def __init__(self, store: StoreReader) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: OrderedDict[object, _Known] = OrderedDict()

    def document(self, run: str, life: object, after: int, newest: int) -> JsonObject | None:
        """Events of the signals after a revision, and at most of the `MAX_SIGNALS` up to `newest`.

        `life` tells the run from others of its name. None = the run has no signal. Raises StoreError.
        """
        oldest = max(0, newest - MAX_SIGNALS)
        # What the run has no signal of was told by one of the same name before it: all is new then.
        if after > oldest and (rows := self._store.signals(run, after_revision=after - 1)):
            return _document(run, rows[-1].revision, _events(rows, after))
        known = self._of(life)
        with known.lock:
            seen = max(known.revision, oldest)
            rows = self._store.signals(run, after_revision=max(0, seen - 1))
            if not rows:
                return None
            events = [event for event in known.events if event["revision"] > oldest]
            events += _events(rows, seen)
            if is_readable(rows[-1]):  # else the next is to be compared with the one before
                known.revision, known.events = rows[-1].revision, _newest(events)
        return _document(run, rows[-1].revision, events)

    def _of(self, life: object) -> _Known:
        with self._lock:
            known = self._known.setdefault(life, _Known())
            self._known.move_to_end(life)
            while len(self._known) > _RUNS:
                self._known.popitem(last=False)
            return known


class _Known:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.revision = 0
        """Of the newest signal whose events are here."""
        self.events: list[JsonObject] = []


def _document(run: str, revision: int, events: Sequence[JsonObject]) -> JsonObject:
    return {"version": VERSION, "run": run, "revision": revision, "events": _newest(events)}


def _events(rows: Sequence[SignalRow], seen: int) -> list[JsonObject]:
    """Of the signals after revision `seen`; arguments as of `changes_by_revision`."""
    return [_event(change) for _, told in changes_by_revision(rows, seen) for change in told]


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
