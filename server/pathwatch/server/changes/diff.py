"""What changed from one signal to the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pathwatch.server.messages import action_name, best_checkpoint_step, phase_name, stop_at_step
from pathwatch.v1 import signal_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseChange:
    """A group stands elsewhere; one that is new comes from UNKNOWN."""

    run: str
    revision: int
    """Of the signal that said so, 1, 2, 3, … within the run."""
    at: float
    """When it was given, seconds since the epoch."""
    step: int
    """Of the newest window behind it."""
    group: str
    before: str
    """Name of the phase, as in `MEMORIZED`."""
    after: str
    reason: str
    evidence: Mapping[str, float]
    """The numbers behind it, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionChange:
    """The run is to do something else, or to stop at another step."""

    run: str
    revision: int
    at: float
    """Seconds since the epoch."""
    step: int
    before: str
    """Name of the action, as in `CONTINUE`."""
    after: str
    stop_at_step: int | None
    """Only with STOP."""
    reason: str
    best_checkpoint_step: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BestCheckpointChange:
    """Another registered checkpoint is the best so far."""

    run: str
    revision: int
    at: float
    """Seconds since the epoch."""
    step: int
    group: str
    """Empty = over all groups."""
    before: int | None
    """Step of the checkpoint; None = there was none."""
    after: int | None


Change = PhaseChange | ActionChange | BestCheckpointChange


def changes(before: signal_pb2.Signal | None, after: signal_pb2.Signal) -> Iterator[Change]:
    """What `after` says that `before` did not: the action, then phases and best checkpoints by group.

    `before` is None for a run's first signal.
    """
    before = before or signal_pb2.Signal(action=signal_pb2.ACTION_CONTINUE)
    of: dict[str, Any] = {
        "run": after.run,
        "revision": after.revision,
        "at": after.created_at.ToMicroseconds() / 1e6,
        "step": after.step,
    }
    if (before.action, stop_at_step(before)) != (after.action, stop_at_step(after)):
        yield ActionChange(
            **of,
            before=action_name(before.action),
            after=action_name(after.action),
            stop_at_step=stop_at_step(after),
            reason=after.reason,
            best_checkpoint_step=best_checkpoint_step(after),
        )
    if best_checkpoint_step(before) != best_checkpoint_step(after):
        yield BestCheckpointChange(
            **of, group="", before=best_checkpoint_step(before), after=best_checkpoint_step(after)
        )
    groups = {status.group: status for status in before.groups}
    for status in after.groups:
        former = groups.get(status.group) or signal_pb2.GroupStatus(phase=signal_pb2.PHASE_UNKNOWN)
        if former.phase != status.phase:
            yield PhaseChange(
                **of,
                group=status.group,
                before=phase_name(former.phase),
                after=phase_name(status.phase),
                reason=status.reason,
                evidence=dict(status.evidence),
            )
        if best_checkpoint_step(former) != best_checkpoint_step(status):
            yield BestCheckpointChange(
                **of,
                group=status.group,
                before=best_checkpoint_step(former),
                after=best_checkpoint_step(status),
            )
