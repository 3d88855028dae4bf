"""The cohorts of a recorded run in numbers, for page and terminal alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.analysis.cohort_series import ALL, MEMORIZED, CohortSeries
from pathwatch.server.analysis.cohort_study import GroupStudy
from pathwatch.server.report.section import Table

_TABLED_TRENDS = {"path_distance": "D_path", "path_consistency": "C_i"}
"""The paper's; the others are in the pictures and files."""
Row = tuple[str | float | int | None, ...]


def cohort_tables(study: Sequence[GroupStudy]) -> tuple[Table, ...]:
    """Memorization, cohorts, trends and controls; a table without rows is left out."""
    tables = (_memorized(study), _cohorts(study), _trends(study), _controls(study))
    return tuple(table for table in tables if table.rows)


def _memorized(study: Sequence[GroupStudy]) -> Table:
    return Table(
        caption="Memorized samples at the end of the run, and their t*",
        header=("group", "ε", "δ", "samples", "memorized", "first t*", "median t*", "last t*"),
        rows=tuple(_memorized_row(group) for group in study),
    )


def _memorized_row(group: GroupStudy) -> Row:
    cohorts = group.cohorts
    return (
        group.group,
        cohorts.epsilon,
        cohorts.delta,
        len(cohorts.memorized_steps_N),
        cohorts.memorized_samples,
        cohorts.cohorts[0].first_step if cohorts.cohorts else None,
        cohorts.median_step,
        cohorts.cohorts[-1].last_step if cohorts.cohorts else None,
    )


def _cohorts(study: Sequence[GroupStudy]) -> Table:
    return Table(
        caption="D_path at the first and the last point of each series (lower = more shared); at the last "
        "also divided by length, 1 − C_i and the mean adjacent cosine (higher = smoother)",
        header=("group", "cohort", "samples", "points", "first", "last", "/ length", "1 − C", "cosine"),
        rows=tuple(row for group in study for row in _cohort_rows(group)),
    )


def _cohort_rows(group: GroupStudy) -> Iterable[Row]:
    for name in (ALL, MEMORIZED):
        series = group.of(name)
        if series is not None:
            yield (group.group, name, int(series.samples_S[-1]), *_course(series))
    for cohort in group.cohorts.cohorts:
        yield (group.group, cohort.name, len(cohort.samples_M), *_course(group.of(cohort.name)))


def _course(series: CohortSeries | None) -> Row:
    if series is None:
        return (0, None, None, None, None, None)
    distance_S = series.metric("path_distance")
    last = ("path_distance_normalized", "path_smoothness", "adjacent_cosine")
    return (
        len(series.steps_S),
        _value(distance_S, 0),
        _value(distance_S, -1),
        *(_value(series.metric(name), -1) for name in last),
    )


def _trends(study: Sequence[GroupStudy]) -> Table:
    return Table(
        caption="Quadratic fits after t*, time rescaled to 0 … 1: slopes at 0 and at 1, R², shape",
        header=("group", "cohort", "metric", "at 0", "at 1", "R²", "shape", "points"),
        rows=tuple(
            (
                group.group,
                fitted.cohort,
                _TABLED_TRENDS[fitted.metric],
                fitted.trend.slope_start,
                fitted.trend.slope_end,
                fitted.trend.r_squared,
                fitted.trend.shape,
                fitted.trend.points,
            )
            for group in study
            for fitted in group.trends
            if fitted.metric in _TABLED_TRENDS
        ),
    )


def _controls(study: Sequence[GroupStudy]) -> Table:
    return Table(
        caption="Controls. Smallest rank correlation of D_path between thresholds τ (all samples; E.1) "
        "and between limits ε, δ and their halves and doubles (memorized samples; E.3); within / "
        "cross-group D_path at the first and last point (E.4); rank correlation of routing "
        "entropy with D_path, all samples (E.5)",
        header=("group", "τ", "ε, δ", "within/cross first", "last", "entropy"),
        rows=tuple(_control_row(group) for group in study),
    )


def _control_row(group: GroupStudy) -> Row:
    whole = group.of(ALL)
    ratio_S = np.full(1, np.nan) if whole is None else whole.metric("path_distance_ratio")
    thresholds = [one.correlation.spearman.r for one in group.thresholds if one.cohort == ALL]
    limits = [
        one.spearman
        for one in group.limits
        if one.spearman is not None and (one.epsilon_factor, one.delta_factor) != (1.0, 1.0)
    ]
    entropy = [one.correlation.spearman.r for one in group.entropy if one.cohort == ALL]
    return (
        group.group,
        min(thresholds, default=None),
        min(limits, default=None),
        _value(ratio_S, 0),
        _value(ratio_S, -1),
        entropy[0] if entropy else None,
    )


def _value(values_S: NDArray[np.float64], at: int) -> float | None:
    value = float(values_S[at])
    return None if np.isnan(value) else value
