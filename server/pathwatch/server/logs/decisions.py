"""One line for each decision, with what it rests on."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pathwatch.server.changes.diff import (
    ActionChange,
    BestCheckpointChange,
    Change,
    PhaseChange,
)
from pathwatch.server.engine.view import RunView
from pathwatch.server.messages import action_name, phase_name
from pathwatch.v1 import run_pb2

log = logging.getLogger("pathwatch.server.decisions")


def log_change(change: Change) -> None:
    """Say what changed; fields of the change become fields of the line.

    The best checkpoint of a single group, which may change with every checkpoint, is said at debug level.
    """
    level = logging.INFO
    fields: dict[str, object] = {"run": change.run, "step": change.step, "revision": change.revision}
    match change:
        case PhaseChange():
            event = "phase changed"
            fields |= {
                "group": change.group,
                "before": change.before,
                "after": change.after,
                "reason": change.reason,
                "evidence": dict(change.evidence),
            }
        case ActionChange():
            event = "action changed"
            fields |= {"before": change.before, "after": change.after, "reason": change.reason}
            if change.stop_at_step is not None:
                fields["stop_at_step"] = change.stop_at_step
            if change.best_checkpoint_step is not None:
                fields["best_checkpoint_step"] = change.best_checkpoint_step
        case BestCheckpointChange():
            event = "best checkpoint changed"
            fields |= {"group": change.group, "before": change.before, "after": change.after}
            level = logging.DEBUG if change.group else logging.INFO
    log.log(level, event, extra=fields)


def log_standing(views: Iterable[RunView]) -> None:
    """Say where each active run stands at a start: what was decided just before a crash may not be logged."""
    for view in views:
        if view.run.state == run_pb2.RUN_STATE_ACTIVE:
            signal = view.last_signal
            fields = {
                "run": view.run.name,
                "step": signal.step,
                "revision": signal.revision,
                "action": action_name(signal.action),
                "reason": signal.reason,
                "phases": {status.group: phase_name(status.phase) for status in signal.groups},
            }
            log.info("run taken up again", extra=fields)
