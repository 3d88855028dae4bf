"""What a report shows: a run's history as the service told it, as one series per group and metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.messages import action_name, best_checkpoint_step, phase_name, stop_at_step
from pathwatch.v1 import run_pb2, signal_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSpan:
    """A stretch of windows in one phase; both ends are steps of windows."""

    phase: str
    first_step: int
    last_step: int
    reason: str
    """Why, as said when the span began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalChange:
    """A change of what the run should do."""

    step: int
    action: str
    stop_at_step: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupHistory:
    """One group from its first window to its last. T windows."""

    group: str
    steps_T: NDArray[np.int64]
    metrics: Mapping[str, NDArray[np.float64]]
    """Name without prefix → [T], NaN where the metric was undefined."""
    spans: tuple[PhaseSpan, ...]
    reason: str
    """Why the group stands where it stands now."""
    best_checkpoint_step: int | None

    def metric(self, name: str) -> NDArray[np.float64] | None:
        """[T] values, or None where no window had any."""
        return self.metrics.get(name)

    @property
    def phase(self) -> str:
        return self.spans[-1].phase

    @property
    def since_step(self) -> int:
        return self.spans[-1].first_step

    def first(self, *phases: str) -> int | None:
        """Step at which the group first stood in one of the phases."""
        return next((span.first_step for span in self.spans if span.phase in phases), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHistory:
    """A whole run."""

    run: str
    finished: bool
    groups: tuple[GroupHistory, ...]
    changes: tuple[SignalChange, ...]
    """Changes of action, oldest first."""
    action: str
    reason: str
    best_checkpoint_step: int | None

    @property
    def first_step(self) -> int:
        return min(int(group.steps_T[0]) for group in self.groups)

    @property
    def last_step(self) -> int:
        return max(int(group.steps_T[-1]) for group in self.groups)

    @property
    def requests(self) -> tuple[SignalChange, ...]:
        """What the run was asked to do: changes to CHECKPOINT and STOP, and the withdrawal of a STOP."""
        before = (None, *self.changes)
        return tuple(
            change
            for last, change in zip(before, self.changes, strict=False)
            if change.action != "CONTINUE" or (last is not None and last.action == "STOP")
        )

    @property
    def stop(self) -> SignalChange | None:
        """The first time the run was told to stop."""
        return next((change for change in self.changes if change.action == "STOP"), None)


MAX_POINTS = 20_000
"""Windows of each group that a history is made of at most: of longer ones every n-th and changes of phase."""


class NothingToReportError(ValueError):
    """The run has no judged window yet."""


def run_history(run: run_pb2.Run, response: signal_pb2.GetMetricsResponse) -> RunHistory:
    """Raises `NothingToReportError` for a run without windows."""
    by_group: dict[str, list[signal_pb2.Window]] = {}
    for window in response.windows:
        by_group.setdefault(window.group, []).append(window)
    if not by_group:
        raise NothingToReportError(f"run {run.name!r} has no judged window yet")
    last = response.signals[-1] if response.signals else signal_pb2.Signal()
    statuses = {status.group: status for status in last.groups}
    return RunHistory(
        run=run.name,
        finished=run.state == run_pb2.RUN_STATE_FINISHED,
        groups=tuple(
            _group_history(group, windows, statuses.get(group)) for group, windows in sorted(by_group.items())
        ),
        changes=_changes(response.signals),
        action=action_name(last.action) if response.signals else "CONTINUE",
        reason=last.reason,
        best_checkpoint_step=best_checkpoint_step(last),
    )


def _group_history(
    group: str, windows: list[signal_pb2.Window], status: signal_pb2.GroupStatus | None
) -> GroupHistory:
    names = sorted({name for window in windows for name in window.metrics})
    return GroupHistory(
        group=group,
        steps_T=np.array([window.step for window in windows], dtype=np.int64),
        metrics={
            name: np.array([window.metrics.get(name, np.nan) for window in windows], dtype=np.float64)
            for name in names
        },
        spans=_spans(windows),
        reason=status.reason if status is not None and status.reason else windows[-1].reason,
        best_checkpoint_step=None if status is None else best_checkpoint_step(status),
    )


def _spans(windows: list[signal_pb2.Window]) -> tuple[PhaseSpan, ...]:
    spans: list[PhaseSpan] = []
    for window in windows:
        phase = phase_name(window.phase)
        if spans and spans[-1].phase == phase:
            last = spans.pop()
            first_step, reason = last.first_step, last.reason
        else:
            first_step, reason = window.step, window.reason
        spans.append(PhaseSpan(phase=phase, first_step=first_step, last_step=window.step, reason=reason))
    return tuple(spans)


def _changes(signals: Iterable[signal_pb2.Signal]) -> tuple[SignalChange, ...]:
    changes: list[SignalChange] = []
    for signal in signals:
        action = action_name(signal.action)
        if changes and changes[-1].action == action:
            continue
        changes.append(
            SignalChange(
                step=signal.step,
                action=action,
                stop_at_step=stop_at_step(signal),
                reason=signal.reason,
            )
        )
    return tuple(changes)
