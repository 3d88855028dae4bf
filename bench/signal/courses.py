"""What baselines have in common: one number per group and log point, acted on as it comes.

A run is stopped when every one of its groups is finished, as the default policy does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.signal.measuring import MeasuredRun
from bench.signal.outcome import GroupOutcome, Outcome
from pathwatch.server.phases.verdict import Phase
from pathwatch.server.report.labels import SMOOTHING_POINTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What a baseline says of one group over the run; entry t must depend on log points 0 … t alone."""

    choice_T: NDArray[np.intp]
    """The checkpoint it would choose at each log point."""
    onset: int | None = None
    """Log point from which it calls the group generalizing; None = never."""
    finish: int | None = None
    """Log point from which it calls the group finished; None = never."""


def outcome(run: MeasuredRun, courses: Sequence[Course]) -> Outcome:
    """What all groups' courses, in the order of `run.groups`, make of a run."""
    finishes = [course.finish for course in courses if course.finish is not None]
    stop = max(finishes) if len(finishes) == len(courses) else None
    last = len(run.steps_T) - 1
    return Outcome(
        stop=stop,
        groups={
            group: GroupOutcome(
                phases=_phases(course),
                chosen_at_stop=int(course.choice_T[last if stop is None else stop]),
                chosen_at_end=int(course.choice_T[last]),
            )
            for group, course in zip(run.groups, courses, strict=True)
        },
    )


def smoothed(values_T: NDArray[np.float64]) -> NDArray[np.float64]:
    """[T] mean of the last `SMOOTHING_POINTS` values, of fewer at the start; NaN where none is defined."""
    padded = np.pad(values_T, (SMOOTHING_POINTS - 1, 0), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, SMOOTHING_POINTS)
    counts_T = np.isfinite(windows).sum(axis=1)
    mean_T: NDArray[np.float64] = np.full(len(values_T), np.nan)
    np.divide(np.nansum(windows, axis=1), counts_T, out=mean_T, where=counts_T > 0)
    return mean_T


def smallest_so_far(smoothed_T: NDArray[np.float64], first: int = 0) -> NDArray[np.intp]:
    """[T] log point of the smallest value from `first` to each one, NaN never; t itself before `first`."""
    points_T = np.arange(len(smoothed_T))
    values_T = np.where(np.isfinite(smoothed_T) & (points_T >= first), smoothed_T, np.inf)
    before_T = np.concatenate([[np.inf], np.minimum.accumulate(values_T)[:-1]])
    smallest_T: NDArray[np.intp] = np.maximum.accumulate(np.where(values_T < before_T, points_T, first))
    return np.where(points_T >= first, smallest_T, points_T)


def first_held(true_T: NDArray[np.bool_], points: int) -> int | None:
    """First log point at which a condition has held for so many in a row."""
    if len(true_T) < points:
        return None
    held = np.flatnonzero(np.lib.stride_tricks.sliding_window_view(true_T, points).all(axis=1))
    return int(held[0]) + points - 1 if len(held) else None


def _phases(course: Course) -> list[tuple[int, Phase]]:
    phases = []
    if course.onset is not None:
        phases.append((course.onset, Phase.GENERALIZING))
        if course.finish is not None:
            phases.append((course.finish, Phase.GENERALIZED))
    return phases
