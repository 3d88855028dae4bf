"""Changes in words, for people."""

from __future__ import annotations

from pathwatch.server.changes.diff import ActionChange, BestCheckpointChange, Change, PhaseChange


def headline(change: Change) -> str:
    """One line that says all that matters."""
    match change:
        case PhaseChange():
            return f"{change.run}: {change.group} is {change.after}, was {change.before}"
        case ActionChange(after="STOP"):
            return f"{change.run}: STOP at step {change.stop_at_step}"
        case ActionChange():
            return f"{change.run}: {change.after}, was {change.before}"
        case BestCheckpointChange():
            of = f" of {change.group}" if change.group else ""
            if change.after is None:
                return f"{change.run}: no checkpoint{of} is the best any more"
            return f"{change.run}: the best checkpoint{of} is that of step {change.after}"


def details(change: Change) -> str:
    """What else there is to know, in one line: step, evidence, the checkpoint to keep."""
    parts = [f"step {change.step}"]
    if isinstance(change, ActionChange) and change.best_checkpoint_step is not None:
        parts.append(f"best checkpoint: step {change.best_checkpoint_step}")
    if isinstance(change, PhaseChange):
        parts += [f"{name} {value:.4g}" for name, value in sorted(change.evidence.items())]
    return " · ".join(parts)
