"""What the detector is measured against. All act on past data only; fitted ones are in `fitting`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.signal.courses import Course, first_held, outcome, smallest_so_far, smoothed
from bench.signal.measuring import MeasuredRun
from bench.signal.outcome import Outcome
from pathwatch.server.report.labels import loss_patience_step

MEMORIZED_SHARE = 0.75
"""Smoothed share of samples below `measuring.MEMORIZED_LOSS` from which a group is taken as memorized."""
NEVER = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSetting:
    """The step number alone: generalizing from a share of the planned steps on, stop at a later one."""

    onset: float
    stop: float
    """`NEVER` = not at all, like `onset`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FallSetting:
    """One routing metric alone: generalizing once it has fallen far enough, finished when it stays."""

    fall: float
    """Below the reference: relative for D_path, absolute for C_i, which may be near 0."""
    reference: Literal["maximum", "memorized"]
    """The largest value so far, or the value when the group was memorized (and nothing before that)."""
    hold: int
    """Log points in a row that it must be so far down."""
    patience: int
    """Log points without a new minimum after which it falls no more."""


def loss_patience(run: MeasuredRun) -> Outcome:
    """Stops a group where its training loss had no new minimum for ten log points; keeps that checkpoint."""
    points_T = np.arange(len(run.steps_T))
    courses = []
    for losses_T in run.losses_TG.T:
        finish = int(np.searchsorted(run.steps_T, loss_patience_step(run.steps_T, losses_T)))
        # At the last log point there is nothing left to stop.
        stopped = finish if finish < points_T[-1] else None
        courses.append(Course(choice_T=np.minimum(points_T, finish), finish=stopped))
    return outcome(run, courses)


def smallest_loss(run: MeasuredRun) -> Outcome:
    """Never stops; keeps the checkpoint of the smallest smoothed training loss of the whole run."""
    return outcome(
        run, [Course(choice_T=smallest_so_far(smoothed(losses_T))) for losses_T in run.losses_TG.T]
    )


def last_checkpoint(run: MeasuredRun) -> Outcome:
    """Never stops; keeps the last checkpoint."""
    points_T = np.arange(len(run.steps_T))
    return outcome(run, [Course(choice_T=points_T) for _ in run.groups])


def step_number(run: MeasuredRun, setting: StepSetting) -> Outcome:
    """The control: all groups of all runs alike."""
    points_T, share_T = np.arange(len(run.steps_T)), run.steps_T / max(run.planned_steps, 1)
    onset, finish = first_held(share_T >= setting.onset, 1), first_held(share_T >= setting.stop, 1)
    return outcome(run, [Course(choice_T=points_T, onset=onset, finish=finish) for _ in run.groups])


def falling(metric: str, *, relative: bool) -> Callable[[MeasuredRun, FallSetting], Outcome]:
    """The rule of `FallSetting` on a metric that is lower the more is shared."""

    def rule(run: MeasuredRun, setting: FallSetting) -> Outcome:
        courses = [
            _falling(values_T, memorized_T, setting, relative)
            for values_T, memorized_T in zip(run.metrics[metric].T, run.memorized_TG.T, strict=True)
        ]
        return outcome(run, courses)

    return rule


def _falling(
    values_T: NDArray[np.float64], memorized_T: NDArray[np.float64], setting: FallSetting, relative: bool
) -> Course:
    smooth_T, points_T = smoothed(values_T), np.arange(len(values_T))
    reference_T = np.fmax.accumulate(smooth_T)
    if setting.reference == "memorized":
        start = first_held(smoothed(memorized_T) >= MEMORIZED_SHARE, 1)
        reference_T = np.full(len(values_T), np.nan if start is None else smooth_T[start])
        reference_T[:start] = np.nan
    # Not a number is below nothing.
    limit_T = reference_T * (1 - setting.fall) if relative else reference_T - setting.fall
    onset = first_held(smooth_T <= limit_T, setting.hold)
    if onset is None:
        return Course(choice_T=points_T)
    choice_T = smallest_so_far(smooth_T, onset)
    finish = first_held(points_T - choice_T >= setting.patience, 1)
    return Course(choice_T=choice_T, onset=onset, finish=finish)


SHARES = (*(share / 10 for share in range(1, 10)), NEVER)
STEP_SETTINGS = tuple(
    StepSetting(onset=onset, stop=stop)
    for onset, stop in product(SHARES, SHARES)
    if onset <= stop or onset == NEVER
)


def _fall_settings(falls: tuple[float, ...]) -> tuple[FallSetting, ...]:
    references: tuple[Literal["maximum", "memorized"], ...] = ("maximum", "memorized")
    return tuple(
        FallSetting(fall=fall, reference=reference, hold=hold, patience=patience)
        for fall, reference, hold, patience in product(falls, references, (1, 3, 5), (5, 10, 20))
    )


DISTANCE_SETTINGS = _fall_settings((0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4))
CONSISTENCY_SETTINGS = _fall_settings((0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5))
