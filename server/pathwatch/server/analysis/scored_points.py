"""The metrics of a group, and of the mean of the groups, where scores were taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.analysis.coefficients import MIN_POINTS
from pathwatch.server.analysis.scores import ScoreSeries, ScoresError, Target, values_at

VALIDATION: Final = "validation_loss"
_FLAT: Final = 0.15
"""Share of the widest span of scores in a run below which a group's scores are said to have hardly moved."""
_BOOKKEEPING: Final = ("_stderr", "_samples", "_pairs")
"""Endings of what is published beside the metrics to say how sure they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPoints:
    """Metrics where scores were taken. M scored steps within the run, rising."""

    group: str | None
    """None = the mean of the groups."""
    test: str
    steps_M: NDArray[np.int64]
    scores_M: NDArray[np.float64]
    interpolated_M: NDArray[np.bool_]
    """Scored steps without a window of their own."""
    metrics: Mapping[str, NDArray[np.float64]]
    """[M] by name, NaN where undefined."""
    memorized_step: int | None


def scored_points(
    target: Target, average: int, validation: Mapping[str, ScoreSeries], notes: list[str]
) -> ScoredPoints:
    """The metrics of a target's group at its scored steps; adds to `notes` what was left out or interpolated.

    With the moving average of the training loss over `average` windows, and the validation loss of the
    group ("" = of the whole run). Raises ScoresError for a group with fewer than `MIN_POINTS` scored steps.
    """
    series, scores = target.series, target.scores
    within_S = (scores.steps_S >= series.steps_T[0]) & (scores.steps_S <= series.steps_T[-1])
    steps_M = scores.steps_S[within_S]
    if len(steps_M) < MIN_POINTS:
        raise ScoresError(
            f"group {series.group!r}: {len(steps_M)} scored steps within the run's windows (steps "
            f"{series.steps_T[0]} to {series.steps_T[-1]}); a correlation needs at least {MIN_POINTS}"
        )
    if not within_S.all():
        notes.append(
            f"Group {series.group}: {int((~within_S).sum())} scores outside of its windows left out."
        )
    interpolated_M = ~np.isin(steps_M, series.steps_T)
    if interpolated_M.any():
        notes.append(
            f"Group {series.group}: {int(interpolated_M.sum())} of {len(steps_M)} scored steps have no "
            "window of their own; metrics there lie on the line between the neighbouring windows."
        )
    metrics = {
        name: values_at(series.steps_T, values_T, steps_M)
        for name, values_T in series.metrics.items()
        if not name.endswith(_BOOKKEEPING)
    }
    if "train_loss" in series.metrics:
        smoothed_T = _moving_average(series.metrics["train_loss"], average)
        metrics["train_loss_moving_average"] = values_at(series.steps_T, smoothed_T, steps_M)
    held_out = validation.get(series.group, validation.get(""))
    if held_out is not None:
        metrics[VALIDATION] = values_at(held_out.steps_S, held_out.scores_S, steps_M)
    return ScoredPoints(
        group=series.group,
        test=target.test,
        steps_M=steps_M,
        scores_M=scores.scores_S[within_S],
        interpolated_M=interpolated_M,
        metrics=metrics,
        memorized_step=series.memorized_step,
    )


def _moving_average(values_T: NDArray[np.float64], windows: int) -> NDArray[np.float64]:
    """Mean over this and the windows before it, fewer at the start, as it could be read during the run."""
    return np.array([values_T[max(0, t + 1 - windows) : t + 1].mean() for t in range(len(values_T))])


def mean_points(points: Sequence[ScoredPoints]) -> ScoredPoints | None:
    """Mean of the groups and of their scores over the steps at which all have one; None for a single group.

    It counts as memorized once all groups do that ever will.
    """
    if len({one.group for one in points}) < 2:
        return None
    common = sorted(set.intersection(*({int(step) for step in one.steps_M} for one in points)))
    if not common:
        return None
    at = [np.searchsorted(one.steps_M, common) for one in points]
    names = set.intersection(*(set(one.metrics) for one in points))
    return ScoredPoints(
        group=None,
        test="",
        steps_M=np.array(common, dtype=np.int64),
        scores_M=np.mean([one.scores_M[i] for one, i in zip(points, at, strict=True)], axis=0),
        interpolated_M=np.any([one.interpolated_M[i] for one, i in zip(points, at, strict=True)], axis=0),
        metrics={
            name: np.mean([one.metrics[name][i] for one, i in zip(points, at, strict=True)], axis=0)
            for name in sorted(names)
        },
        memorized_step=max(
            (one.memorized_step for one in points if one.memorized_step is not None), default=None
        ),
    )


def flat_scores(points: Sequence[ScoredPoints]) -> list[str]:
    """Remarks on groups whose scores hardly moved while others' did: there is nothing to follow."""
    spans = [float(np.ptp(one.scores_M)) for one in points]
    return [
        f"Group {one.group}: its scores span {span:.3g}, those of another group {max(spans):.3g}. What "
        "correlates with scores that hardly moved follows their noise."
        for one, span in zip(points, spans, strict=True)
        if span < _FLAT * max(spans)
    ]
