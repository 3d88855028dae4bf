"""The paper's view of a whole recorded run: cohorts, their metrics over time, trends and controls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.analysis.cohort_series import ALL, MEMORIZED, CohortSeries, cohort_series
from pathwatch.server.analysis.cohorts import GroupCohorts, MemorizedCounts, group_cohorts, memorized_counts
from pathwatch.server.analysis.memorization_robustness import LimitVariant, limit_variants
from pathwatch.server.analysis.series_correlation import SeriesCorrelation, series_correlation
from pathwatch.server.analysis.trends import QuadraticTrend, quadratic_trend
from pathwatch.server.metrics.summary import MetricSettings
from pathwatch.server.traces import Trace

TREND_METRICS = ("path_distance", "path_distance_normalized", "path_consistency", "adjacent_cosine")
"""Metrics whose course after t* is fitted (Fig. 4)."""
THRESHOLD_METRICS: Mapping[float, str] = {
    0.5: "path_distance_tau_0_5",
    0.6: "path_distance_tau_0_6",
    0.7: "path_distance",
    0.8: "path_distance_tau_0_8",
}
"""D_path by threshold τ (§E.1); 0.7 is the published one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySettings:
    """What to study."""

    groups: tuple[str, ...] = ()
    """Empty = all."""
    epsilon: float | None = None
    """Largest loss that counts as memorized, nats; None = `auto` per group (B.1)."""
    delta: float = 0.05
    """Largest distance from a sample's last loss, nats (§3.1)."""
    cohorts: int = 4
    """Cohorts per group at most."""
    every: int = 1
    """Metrics at every n-th log point, and at the last; t* always rests on all of them."""
    metrics: MetricSettings = field(default_factory=MetricSettings)
    """Thresholds must be those of `THRESHOLD_METRICS`, with 0.7 first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricTrend:
    """Course of one metric after memorization."""

    cohort: str
    """`memorized` or a cohort's name."""
    metric: str
    trend: QuadraticTrend


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdAgreement:
    """Whether D_path tells the same story at two thresholds (§E.1)."""

    cohort: str
    """`all` or `memorized`."""
    threshold: float
    other_threshold: float
    correlation: SeriesCorrelation


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyAgreement:
    """Routing entropy against D_path over the run (§E.5)."""

    cohort: str
    correlation: SeriesCorrelation


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStudy:
    """One group."""

    cohorts: GroupCohorts
    counts: MemorizedCounts
    series: tuple[CohortSeries, ...]
    """`all`, `memorized`, then the cohorts; those without a point are left out."""
    trends: tuple[MetricTrend, ...]
    thresholds: tuple[ThresholdAgreement, ...]
    entropy: tuple[EntropyAgreement, ...]
    limits: tuple[LimitVariant, ...]
    limit_steps_P: NDArray[np.int64]
    """Steps of the series in `limits`."""

    @property
    def group(self) -> str:
        return self.cohorts.group

    def of(self, cohort: str) -> CohortSeries | None:
        """The series of that name, if it has a point."""
        return next((series for series in self.series if series.cohort == cohort), None)


def cohort_study(
    trace: Trace,
    settings: StudySettings,
    follow: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> tuple[GroupStudy, ...]:
    """Studies the groups in the trace's order; raises `ValueError` for a group that the trace has not.

    `follow` hands on the log points one by one as they are taken: what wants to show progress counts there.
    """
    unknown = [group for group in settings.groups if group not in trace.groups]
    if unknown:
        raise ValueError(
            f"no group {', '.join(map(repr, unknown))} in {trace.name}; it has {', '.join(trace.groups)}"
        )
    cohorts = [
        group_cohorts(trace, group, epsilon=settings.epsilon, delta=settings.delta, limit=settings.cohorts)
        for group in trace.groups
        if not settings.groups or group in settings.groups
    ]
    last = len(trace.steps_T) - 1
    points = [*range(0, last, settings.every), last]
    series = cohort_series(trace, cohorts, follow(points), settings.metrics)
    return tuple(
        _group_study(trace, group, points, tuple(one for one in series if one.group == group.group), settings)
        for group in cohorts
    )


def _group_study(
    trace: Trace,
    cohorts: GroupCohorts,
    points: Sequence[int],
    series: tuple[CohortSeries, ...],
    settings: StudySettings,
) -> GroupStudy:
    whole = [one for one in series if one.cohort in (ALL, MEMORIZED)]
    return GroupStudy(
        cohorts=cohorts,
        counts=memorized_counts(cohorts.memorized_steps_N, trace.steps_T),
        series=series,
        trends=tuple(trend for one in series if one.cohort != ALL for trend in _trends(one)),
        thresholds=tuple(agreement for one in whole for agreement in _thresholds(one)),
        entropy=tuple(agreement for one in series for agreement in _entropy(one)),
        limits=limit_variants(trace, cohorts, points, settings.metrics),
        limit_steps_P=trace.steps_T[points],
    )


def _trends(series: CohortSeries) -> list[MetricTrend]:
    fits = {name: quadratic_trend(series.steps_S, series.metric(name)) for name in TREND_METRICS}
    return [
        MetricTrend(cohort=series.cohort, metric=name, trend=trend)
        for name, trend in fits.items()
        if trend is not None
    ]


def _thresholds(series: CohortSeries) -> list[ThresholdAgreement]:
    found = []
    for (threshold, metric), (other, other_metric) in combinations(THRESHOLD_METRICS.items(), 2):
        correlation = series_correlation(series.metric(metric), series.metric(other_metric))
        if correlation is not None:
            found.append(
                ThresholdAgreement(
                    cohort=series.cohort,
                    threshold=threshold,
                    other_threshold=other,
                    correlation=correlation,
                )
            )
    return found


def _entropy(series: CohortSeries) -> list[EntropyAgreement]:
    correlation = series_correlation(series.metric("routing_entropy"), series.metric("path_distance"))
    return [] if correlation is None else [EntropyAgreement(cohort=series.cohort, correlation=correlation)]
