"""How well the metrics of a run follow scores that the run never saw (paper, Table 1), beside a control.

The control is the step number: whatever drifts one way correlates with a score that rises once. A metric
tells something where its coefficient exceeds that of the step number, and where the partial correlation,
the step taken out, is still there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.analysis.coefficients import MIN_POINTS, Coefficient, pearson, spearman
from pathwatch.server.analysis.scored_points import ScoredPoints, flat_scores, mean_points, scored_points
from pathwatch.server.analysis.scores import ScoreSeries, Target

Scope: TypeAlias = Literal["run", "memorized"]
"""`run`: all scored steps; `memorized`: those from the step on at which the group counted as memorized."""
SCOPES: Final[tuple[Scope, ...]] = ("memorized", "run")
CONTROL: Final = "step"
"""Name of the control among the metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricCorrelation:
    """One metric against one score; None where a coefficient is undefined."""

    metric: str
    n: int
    """Scored steps at which the metric was defined."""
    pearson: Coefficient | None
    spearman: Coefficient | None
    partial_pearson: Coefficient | None
    """With the step number removed from both; None for the control."""
    partial_spearman: Coefficient | None
    """The same on ranks."""
    step_pearson: float | None
    """The control's coefficient over the same points."""
    step_spearman: float | None

    @property
    def above_step_pearson(self) -> bool:
        """Whether |r| exceeds that of the step number over the same points."""
        return _exceeds(self.pearson, self.step_pearson)

    @property
    def above_step_spearman(self) -> bool:
        """The same on ranks."""
        return _exceeds(self.spearman, self.step_spearman)


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlations:
    """All metrics of one group, or of the mean of the groups, against one score in one scope."""

    group: str | None
    """None = the mean of the groups."""
    test: str
    """Empty where the scores name no tests."""
    scope: Scope
    first_step: int
    """Of the scored steps within the scope."""
    last_step: int
    interpolated: int
    """How many of them have no window of their own."""
    metrics: tuple[MetricCorrelation, ...]
    """The control first."""

    @property
    def control(self) -> MetricCorrelation:
        return self.metrics[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanCorrelation:
    """One metric's coefficients averaged over the groups in which it has them."""

    scope: Scope
    metric: str
    groups: int
    """How many; groups with several tests count once for each."""
    pearson: float | None
    spearman: float | None
    partial_pearson: float | None
    partial_spearman: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelationTable:
    """Table 1 of the paper for one run, with control."""

    by_group: tuple[Correlations, ...]
    """After memorization first, where there is one, then the whole run, group by group."""
    pooled: tuple[Correlations, ...]
    """Mean of the groups' metrics against the mean of their scores, by scope; with two groups or more."""
    means: tuple[MeanCorrelation, ...]
    """Mean of the groups' coefficients."""
    remarks: tuple[str, ...]
    """What was left out, and why."""


def correlation_table(
    targets: Sequence[Target],
    *,
    average: int = 5,
    validation: Mapping[str, ScoreSeries] | None = None,
    remarks: Sequence[str] = (),
) -> CorrelationTable:
    """Correlates every metric of every target's group with the target's scores.

    `average`: windows that the moving average of the training loss looks back on, itself included.
    `validation`: validation loss by group, "" = of the whole run. Scores before the first window or after
    the last are left out. Raises ScoresError for a group with fewer than `MIN_POINTS` scored steps.
    """
    notes = list(remarks)
    validation = validation or {}
    points = [scored_points(target, average, validation, notes) for target in targets]
    notes += flat_scores(points)
    memorized = [one for one in points if one.memorized_step is not None]
    by_group = [
        one for each in points for scope in SCOPES if (one := _correlations(each, scope, notes)) is not None
    ]
    pooled = [
        one
        for scope in SCOPES
        if (mean := mean_points(memorized if scope == "memorized" else points)) is not None
        and (one := _correlations(mean, scope, [])) is not None
    ]
    return CorrelationTable(
        by_group=tuple(by_group),
        pooled=tuple(pooled),
        means=tuple(mean for scope in SCOPES for mean in _means(by_group, scope)),
        remarks=tuple(dict.fromkeys(notes)),
    )


def _correlations(points: ScoredPoints, scope: Scope, notes: list[str]) -> Correlations | None:
    """None where a group was never memorized, or has too few scores since."""
    chosen_M = np.ones(len(points.steps_M), bool)
    if scope == "memorized":
        if points.memorized_step is None:
            notes.append(
                f"Group {points.group} never counted as memorized: it has figures of the whole run only."
            )
            return None
        chosen_M = points.steps_M >= points.memorized_step
    count = int(chosen_M.sum())
    if count < MIN_POINTS:
        notes.append(
            f"Group {points.group}: {count} scores since it was memorized at step {points.memorized_step}: "
            "too few to correlate."
        )
        return None
    steps_M = points.steps_M[chosen_M]
    metrics = {CONTROL: points.steps_M.astype(np.float64), **points.metrics}
    return Correlations(
        group=points.group,
        test=points.test,
        scope=scope,
        first_step=int(steps_M[0]),
        last_step=int(steps_M[-1]),
        interpolated=int(points.interpolated_M[chosen_M].sum()),
        metrics=tuple(
            _metric_correlation(name, values_M, points, chosen_M & np.isfinite(values_M))
            for name, values_M in metrics.items()
        ),
    )


def _metric_correlation(
    metric: str, values_M: NDArray[np.float64], points: ScoredPoints, chosen_M: NDArray[np.bool_]
) -> MetricCorrelation:
    x, y = values_M[chosen_M], points.scores_M[chosen_M]
    steps = points.steps_M[chosen_M].astype(np.float64)
    control = metric == CONTROL
    return MetricCorrelation(
        metric=metric,
        n=len(x),
        pearson=pearson(x, y),
        spearman=spearman(x, y),
        partial_pearson=None if control else pearson(x, y, steps),
        partial_spearman=None if control else spearman(x, y, steps),
        step_pearson=_value(pearson(steps, y)),
        step_spearman=_value(spearman(steps, y)),
    )


def _means(by_group: Sequence[Correlations], scope: Scope) -> list[MeanCorrelation]:
    found = [one for one in by_group if one.scope == scope]
    by_metric: dict[str, list[MetricCorrelation]] = {}
    for one in found:
        for each in one.metrics:
            by_metric.setdefault(each.metric, []).append(each)
    return [
        MeanCorrelation(
            scope=scope,
            metric=metric,
            groups=sum(each.pearson is not None for each in all_groups),
            pearson=_mean([each.pearson for each in all_groups]),
            spearman=_mean([each.spearman for each in all_groups]),
            partial_pearson=_mean([each.partial_pearson for each in all_groups]),
            partial_spearman=_mean([each.partial_spearman for each in all_groups]),
        )
        for metric, all_groups in by_metric.items()
    ]


def _mean(coefficients: Sequence[Coefficient | None]) -> float | None:
    known = [one.r for one in coefficients if one is not None]
    return float(np.mean(known)) if known else None


def _value(coefficient: Coefficient | None) -> float | None:
    return None if coefficient is None else coefficient.r


def _exceeds(coefficient: Coefficient | None, control: float | None) -> bool:
    return coefficient is not None and control is not None and abs(coefficient.r) > abs(control)
