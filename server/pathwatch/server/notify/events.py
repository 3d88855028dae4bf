"""Changes as webhooks are told of them, and which of them a webhook wants."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from pathwatch.server.changes.diff import ActionChange, BestCheckpointChange, Change, PhaseChange
from pathwatch.server.config import Event, Webhook


@dataclass(frozen=True, slots=True)
class Notification:
    """What one request tells: a change, or some that are joined."""

    changes: Sequence[Change]

    @property
    def id(self) -> str:
        """The same whenever it is sent again."""
        ids = [change_id(change) for change in self.changes]
        return ids[0] if len(ids) == 1 else _digest("summary", *ids)


def change_id(change: Change) -> str:
    """Tells this change from all others: of other groups, runs, and of runs under the same name before."""
    group = "" if isinstance(change, ActionChange) else change.group
    return _digest(change.run, str(round(change.at * 1e6)), str(change.revision), kind_of(change), group)


def kind_of(change: Change) -> str:
    """As the file of webhooks calls it."""
    match change:
        case PhaseChange():
            return Event.PHASE.value
        case ActionChange():
            return Event.ACTION.value
        case BestCheckpointChange():
            return Event.CHECKPOINT.value


def is_wanted(webhook: Webhook, change: Change) -> bool:
    """Whether the webhook is to be told of it."""
    if kind_of(change) not in webhook.events:
        return False
    if isinstance(change, ActionChange):
        return webhook.is_for(change.run)
    fits = not isinstance(change, PhaseChange) or change.after in webhook.phases
    return fits and webhook.is_for(change.run, change.group)


def event_document(change: Change, public_url: str) -> dict[str, object]:
    """A change as JSON (docs/notifications.md)."""
    document: dict[str, object] = {
        "id": change_id(change),
        "kind": kind_of(change),
        "run": change.run,
        "group": None,
        "before": change.before,
        "after": change.after,
        "step": change.step,
        "revision": change.revision,
        "at": time_text(change.at),
        "reason": None,
        "evidence": {},
        "stop_at_step": None,
        "best_checkpoint_step": None,
        "links": {"run": run_link(change.run, public_url)} if public_url else {},
    }
    match change:
        case PhaseChange():
            document |= {"group": change.group, "reason": change.reason, "evidence": numbers(change)}
        case ActionChange():
            document |= {
                "reason": change.reason,
                "stop_at_step": change.stop_at_step,
                "best_checkpoint_step": change.best_checkpoint_step,
            }
        case BestCheckpointChange():
            document |= {"group": change.group or None, "best_checkpoint_step": change.after}
    return document


def numbers(change: PhaseChange) -> dict[str, float | None]:
    """The evidence; JSON has no word for NaN and infinity, which become None."""
    return {name: value if math.isfinite(value) else None for name, value in change.evidence.items()}


def run_link(run: str, public_url: str) -> str:
    """Where people see the run."""
    return f"{public_url.rstrip('/')}/#/runs/{quote(run, safe='')}"


def time_text(at: float) -> str:
    """Seconds since the epoch as ISO 8601, UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _digest(*parts: str) -> str:
    # No part holds a NUL, so that no two lists of them read the same.
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
