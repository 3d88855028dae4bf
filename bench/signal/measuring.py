"""One pass over a trace: the detector's evidence and the published metrics of every window."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.signal.variants import VARIANTS
from pathwatch.server import plugins
from pathwatch.server.analysis.windows import trace_geometry, trace_windows
from pathwatch.server.metrics.summary import MetricSettings, group_metrics
from pathwatch.server.phases.verdict import Evidence
from pathwatch.server.report.labels import Labels, load_labels
from pathwatch.server.traces import Trace, load_trace

METRICS = ("path_distance", "path_distance_normalized", "path_consistency")
"""What the baselines look at, besides the loss (docs/metrics.md)."""
MEMORIZED_LOSS = math.log(2)
"""Nats; a sample below it is more likely than not to be answered as it was trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRun:
    """All that methods and the judgement of them need of a run. T log points, G groups."""

    name: str
    accuracy: bool
    """Whether scores are test accuracy (higher = better); else validation loss in nats (lower = better)."""
    groups: tuple[str, ...]
    steps_T: NDArray[np.int64]
    planned_steps: int
    """Steps the run was to have: known to a job from its first step on."""
    rounds: Sequence[Mapping[str, Evidence]]
    """The evidence of each log point's windows, by group."""
    losses_TG: NDArray[np.float64]
    """Mean training loss of the probe, nats."""
    memorized_TG: NDArray[np.float64]
    """Share of the probe's samples with a loss below `MEMORIZED_LOSS`."""
    metrics: Mapping[str, NDArray[np.float64]]
    """[T, G] each, by name, those of `METRICS`; NaN = undefined."""
    scores_TG: NDArray[np.float64]
    """For judging only: accuracy smoothed over five log points, or validation loss as it is."""


def measure_file(path: Path, labels_path: Path, detector: str, variant: str) -> MeasuredRun:
    """A trace file, damaged by a variant, measured. Raises TraceError, LabelsError, PluginError."""
    return measure_run(load_trace(path), load_labels(labels_path), detector, variant)


def measure_run(trace: Trace, labels: Labels, detector: str = "", variant: str = "as-is") -> MeasuredRun:
    """A run measured by a detector plug-in (empty = the default). Raises ValueError where labels lack."""
    scores_TG = _scores(trace, labels)
    damaged = VARIANTS[variant](trace)
    trace = damaged.trace
    measuring = plugins.load_detector(detector)
    settings = MetricSettings(thresholds=MetricSettings().thresholds[:1])
    rounds, metrics = [], {name: np.full(trace.losses_TGN.shape[:2], np.nan) for name in METRICS}
    for point in range(len(trace.steps_T)):
        windows = trace_windows(trace, point)
        rounds.append({group: measuring.measure(window) for group, window in windows.items()})
        if point == 0 or damaged.points_T[point] != damaged.points_T[point - 1]:
            of_groups = group_metrics(windows, trace_geometry(trace, point), settings)
        # Else the windows are those of the point before but for their step, at which no metric looks.
        for name, values_TG in metrics.items():
            values_TG[point] = [of_groups[group].values.get(name, np.nan) for group in trace.groups]
    losses_TGN = np.where(np.isfinite(trace.losses_TGN), trace.losses_TGN, np.nan).astype(np.float64)
    known_TG = np.isfinite(losses_TGN).sum(axis=2)
    return MeasuredRun(
        name=trace.name,
        accuracy=labels.higher_is_better,
        groups=trace.groups,
        steps_T=trace.steps_T,
        planned_steps=int(trace.steps_T[-1]),
        rounds=rounds,
        losses_TG=_ratio(np.nansum(losses_TGN, axis=2), known_TG),
        memorized_TG=_ratio((losses_TGN < MEMORIZED_LOSS).sum(axis=2), known_TG),
        metrics=metrics,
        scores_TG=scores_TG[damaged.points_T],
    )


def _scores(trace: Trace, labels: Labels) -> NDArray[np.float64]:
    """[T, G] scores at the labelled steps nearest to the trace's."""
    nearest_T = np.abs(labels.steps_T[None, :] - trace.steps_T[:, None]).argmin(axis=1)
    of_groups = []
    for group in trace.groups:
        smoothed = labels.smoothed(group)
        if smoothed is None or not np.isfinite(smoothed).all():
            raise ValueError(f"{trace.name}: group {group!r} has no labels, or not at every step")
        of_groups.append(smoothed[nearest_T])
    return np.stack(of_groups, axis=1)


def _ratio(sums_TG: NDArray[np.generic], counts_TG: NDArray[np.int64]) -> NDArray[np.float64]:
    """NaN where nothing was counted."""
    ratio_TG: NDArray[np.float64] = np.full(counts_TG.shape, np.nan)
    np.divide(sums_TG, counts_TG, out=ratio_TG, where=counts_TG > 0)
    return ratio_TG
