"""Metrics over a recorded run: of a whole group, of its memorized samples, and of each of its cohorts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.analysis.cohorts import GroupCohorts
from pathwatch.server.analysis.windows import trace_geometry, trace_windows
from pathwatch.server.metrics.distance import cross_path_distance
from pathwatch.server.metrics.pathways import pathways, rank_experts
from pathwatch.server.metrics.summary import GroupMetrics, MetricSettings, group_metrics
from pathwatch.server.metrics.window import Geometry, WindowArrays
from pathwatch.server.traces import Trace

ALL, MEMORIZED = "all", "memorized"
"""All samples of a group; at each point those memorized by then. Other names are those of cohorts."""

MIN_SAMPLES = 2
"""Samples below which nothing is given: a distance needs two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortSeries:
    """Metrics of some samples of a group. S points; NaN = undefined at that point."""

    group: str
    cohort: str
    """`all`, `memorized`, or a cohort's name."""
    steps_S: NDArray[np.int64]
    samples_S: NDArray[np.int64]
    """How many samples the metrics are of."""
    metrics: Mapping[str, NDArray[np.float64]]
    """[S] by name (docs/metrics.md)."""
    layer_path_distance_SL: NDArray[np.float64]
    """D_path of each layer (Fig. 5), lower = more shared."""

    def metric(self, name: str) -> NDArray[np.float64]:
        """[S] values, all NaN where the metric was never defined."""
        return self.metrics.get(name, np.full(len(self.steps_S), np.nan))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    step: int
    samples: int
    metrics: GroupMetrics


def cohort_series(
    trace: Trace, groups: Sequence[GroupCohorts], points: Iterable[int], settings: MetricSettings
) -> tuple[CohortSeries, ...]:
    """Series of each of the groups over the log points given (ascending): `all`, `memorized`, its cohorts.

    `all` is what the live service publishes. A cohort's series covers the same samples throughout: it begins
    when all of them are memorized (the cohort's largest t*), and the series `memorized` when two samples are
    (paper §3.2, §4). The cross-group distance (§E.4) is to *all* samples of the other groups throughout.
    A series without points is left out.
    """
    settings = replace(settings, per_layer=True)
    rows: dict[tuple[str, str], list[_Point]] = {}
    for point in points:
        step = int(trace.steps_T[point])
        at_point = _MetricsAtPoint(trace_windows(trace, point), trace_geometry(trace, point), settings)
        for group in groups:
            for cohort, samples_M in _series_samples(group, step, trace.samples):
                metrics = at_point.of(group.group, samples_M)
                row = _Point(step=step, samples=len(samples_M), metrics=metrics)
                rows.setdefault((group.group, cohort), []).append(row)
    order = [(group.group, name) for group in groups for name in _names(group)]
    return tuple(_series(*key, rows[key], trace.layers) for key in order if key in rows)


def window_subset(window: WindowArrays, samples_M: NDArray[np.int64]) -> WindowArrays:
    """The window of these samples alone, given by their places."""
    return replace(
        window,
        **{
            field.name: getattr(window, field.name)[samples_M]
            for field in fields(window)
            if isinstance(getattr(window, field.name), np.ndarray)
        },
    )


def _names(group: GroupCohorts) -> tuple[str, ...]:
    return (ALL, MEMORIZED, *(cohort.name for cohort in group.cohorts))


def _series_samples(group: GroupCohorts, step: int, samples: int) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Names and samples of the series that have a value at this step."""
    subsets = {ALL: np.arange(samples), MEMORIZED: group.memorized_by(step)}
    subsets |= {cohort.name: cohort.samples_M for cohort in group.cohorts if cohort.last_step <= step}
    for name in _names(group):
        if name in subsets and len(subsets[name]) >= MIN_SAMPLES:
            yield name, subsets[name]


class _MetricsAtPoint:
    """Metrics of sets of samples at one log point; equal sets are computed once."""

    def __init__(
        self, windows: Mapping[str, WindowArrays], geometry: Geometry | None, settings: MetricSettings
    ) -> None:
        self._windows = windows
        self._geometry = geometry
        self._settings = settings
        self._pathways = {
            group: pathways(rank_experts(window.weights_NLK), settings.thresholds[0])
            for group, window in windows.items()
        }
        everyone = np.arange(len(next(iter(windows.values())).sample_ids_N))
        self._known = {
            (group, everyone.tobytes()): metrics
            for group, metrics in group_metrics(windows, geometry, settings).items()
        }

    def of(self, group: str, samples_M: NDArray[np.int64]) -> GroupMetrics:
        key = group, samples_M.tobytes()
        if key not in self._known:
            self._known[key] = self._computed(group, samples_M)
        return self._known[key]

    def _computed(self, group: str, samples_M: NDArray[np.int64]) -> GroupMetrics:
        subset = window_subset(self._windows[group], samples_M)
        metrics = group_metrics({group: subset}, self._geometry, self._settings)[group]
        others = [name for name in self._windows if name != group]
        if not others:
            return metrics
        budget = self._settings.pair_budget.shared(len(others))
        own_M = [self._pathways[group][sample] for sample in samples_M]
        cross = sum(cross_path_distance(own_M, self._pathways[other], budget) for other in others)
        mean = cross / len(others)
        values = {**metrics.values, "path_distance_cross": mean}
        if mean > 0:
            values["path_distance_ratio"] = values["path_distance"] / mean
        return replace(metrics, values=values)


def _series(group: str, cohort: str, rows: Sequence[_Point], layers: int) -> CohortSeries:
    names = sorted({name for row in rows for name in row.metrics.values})
    unknown_L = np.full(layers, np.nan)
    by_layer = (row.metrics.layer_path_distance_L for row in rows)
    return CohortSeries(
        group=group,
        cohort=cohort,
        steps_S=np.array([row.step for row in rows]),
        samples_S=np.array([row.samples for row in rows]),
        metrics={name: np.array([row.metrics.values.get(name, np.nan) for row in rows]) for name in names},
        layer_path_distance_SL=np.array([unknown_L if one is None else one for one in by_layer]),
    )
