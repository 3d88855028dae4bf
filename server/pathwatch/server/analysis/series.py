"""The metrics of a recorded run as one series per group: what the live service would have published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.analysis.windows import trace_geometry, trace_windows
from pathwatch.server.metrics.summary import MetricSettings, group_metrics
from pathwatch.server.phases.memorized import FittedShare
from pathwatch.server.sketch.memorization import MemorizationTracker
from pathwatch.server.traces import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSeries:
    """The metrics of one group, window by window. T windows."""

    group: str
    steps_T: NDArray[np.int64]
    """Rising strictly."""
    metrics: Mapping[str, NDArray[np.float64]]
    """Name without prefix → [T], NaN where the metric was undefined."""
    memorized_step: int | None
    """Window at which the group counted as memorized (phase MEMORIZED, docs/science.md); None = never."""


def trace_series(trace: Trace, points: Iterable[int]) -> tuple[GroupSeries, ...]:
    """All metrics of `metrics.summary`, and `memorized_ratio` (ε auto), at log points
    `points` (ascending), by group in the order of the trace."""
    settings = MetricSettings()
    trackers = {group: MemorizationTracker(None) for group in trace.groups}
    fitted = {group: FittedShare() for group in trace.groups}
    steps: list[int] = []
    values: dict[str, list[Mapping[str, float]]] = {group: [] for group in trace.groups}
    for point in points:
        windows = trace_windows(trace, point)
        steps.append(int(trace.steps_T[point]))
        computed = group_metrics(windows, trace_geometry(trace, point), settings)
        for group, window in windows.items():
            finite_N = np.isfinite(window.losses_N)
            trackers[group].update(window.step, window.sample_ids_N[finite_N], window.losses_N[finite_N])
            fitted[group].take(window.step, window.losses_N[finite_N])
            ratio = trackers[group].ratio
            own = {} if ratio is None else {"memorized_ratio": ratio}
            values[group].append({**computed[group].values, **own})
    return tuple(
        GroupSeries(
            group=group,
            steps_T=np.array(steps, dtype=np.int64),
            metrics={
                name: np.array([window.get(name, np.nan) for window in values[group]], dtype=np.float64)
                for name in sorted({name for window in values[group] for name in window})
            },
            memorized_step=fitted[group].since_step,
        )
        for group in trace.groups
    )
