"""One group's evidence so far, and what follows from it."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.phases import words
from pathwatch.server.phases.evidence import Reading
from pathwatch.server.phases.guard import UnseenLossGuard
from pathwatch.server.phases.joint import onset_when_memorized
from pathwatch.server.phases.memorized import SMOOTHED, FittedShare
from pathwatch.server.phases.ranking import (
    LossHistory,
    Scores,
    by_training_loss,
    by_unseen_loss,
    newest_first,
)
from pathwatch.server.phases.sharing import SharingWatch, Stage
from pathwatch.server.phases.verdict import GroupVerdict, Phase

MIN_POINTS = 3
"""Windows before anything is said."""
_OF_STAGE = {
    Stage.APART: Phase.MEMORIZED,
    Stage.SHARING: Phase.GENERALIZING,
    Stage.SETTLED: Phase.GENERALIZED,
    Stage.COLLAPSED: Phase.REGRESSING,
}


class GroupTrack:
    """Takes in a group's windows: `take` for all groups of a round, then `conclude`."""

    def __init__(self) -> None:
        self._fitted = FittedShare()
        self._guard = UnseenLossGuard()
        self._losses = LossHistory()
        self._watch: SharingWatch | None = None
        self._newest: Reading | None = None
        self._recent: deque[Reading] = deque(maxlen=SMOOTHED)
        self._dimension_peak = -np.inf
        self._moved = False
        self._points = 0
        self._step = -1
        self._knows_visits = False
        self.verdict: GroupVerdict | None = None
        """None before the first `conclude`."""

    @property
    def drop(self) -> float:
        """How far the group's routing has come to be shared; 0 = not at all."""
        return max(0.0, self._watch.drop.size) if self._watch and self._watch.drop else 0.0

    def take(self, step: int, reading: Reading) -> None:
        """Take in a window. One that equals the last, of a model that has not moved, adds nothing."""
        self._step = step
        self._moved = self._newest is None or not reading.same_as(self._newest)
        if not self._moved:
            return
        self._newest = reading
        self._recent.append(reading)
        if reading.dimension_B is not None:
            self._dimension_peak = max(self._dimension_peak, float(reading.dimension_B[0]))
        self._points += 1
        if len(reading.losses_N):
            self._losses.take(step, float(reading.losses_N.mean()))
        self._knows_visits = self._knows_visits or bool((reading.visits_N >= 0).any())
        self._guard.take(step, reading.sample_ids_N, reading.losses_N, reading.visits_N)
        self._fitted.take(step, reading.losses_N)
        if self._watch is None and self._fitted.since_step is not None:
            onset = onset_when_memorized(step, self._recent, self._dimension_peak)
            self._watch = SharingWatch(self._fitted.points, onset)
        if self._watch is not None:
            self._watch.add(step, reading)

    def conclude(self, step: int, largest_other: float) -> None:
        """Renew the verdict; `largest_other` is the largest drop of the run's other groups."""
        if not self._moved:
            return
        if self._watch is not None:
            self._watch.judge(step, largest_other, may_settle=self._by_target or self._guard.watching)
        phase = self._phase()
        since = self.verdict.since_step if self.verdict and self.verdict.phase is phase else step
        self.verdict = GroupVerdict(
            phase=phase,
            since_step=since,
            reason=self._reason(phase, largest_other),
            numbers=self._numbers(largest_other),
        )

    def scores(self, steps_C: NDArray[np.int64]) -> Scores:
        """The group's opinion of checkpoints at these steps."""
        if self._guard.overfitting:
            return by_unseen_loss(steps_C, self._guard.curve)
        if self._watch is not None and self._watch.onset is not None:
            return by_training_loss(
                steps_C,
                self._losses,
                onset_step=self._watch.onset.step,
                step=self._step,
                collapsed=self._watch.collapsed_once,
            )
        return newest_first(steps_C, self._losses if self._watch is None else None)

    @property
    def _by_target(self) -> bool:
        return self._newest is not None and self._newest.by_target

    def _phase(self) -> Phase:
        if self._points < MIN_POINTS:
            return Phase.UNKNOWN
        if self._guard.overfitting:
            return Phase.OVERFITTING
        return Phase.LEARNING if self._watch is None else _OF_STAGE[self._watch.stage]

    def _reason(self, phase: Phase, largest_other: float) -> str:
        if phase is Phase.UNKNOWN:
            return words.too_few_windows(self._points, MIN_POINTS)
        newest, watching = self._guard.newest, self._guard.watching
        if phase is Phase.OVERFITTING and newest is not None:
            return words.overfitting(newest, watching)
        if self._watch is None or self._fitted.since_step is None:
            told = words.learning(self._fitted.share)
        else:
            told = words.routing(self._watch, self._fitted.since_step, self._by_target, largest_other)
        return f"{told} {words.unseen(newest, watching, self._knows_visits)}"

    def _numbers(self, largest_other: float) -> dict[str, float]:
        numbers = {"fitted_share": self._fitted.share, "largest_other_drop": largest_other}
        if self._fitted.since_step is not None:
            numbers["memorized_step"] = float(self._fitted.since_step)
            numbers["routing_by_target"] = float(self._by_target)
        if self._watch is not None and self._watch.drop is not None:
            drop = self._watch.drop
            numbers |= {"drop": drop.size, "drop_net": drop.net, "drop_stderr": drop.stderr}
            if self._watch.onset is not None:
                numbers["onset_step"] = float(self._watch.onset.step)
        if (unseen := self._guard.newest) is not None:
            numbers |= {
                "unseen_loss": unseen.loss,
                "unseen_loss_minimum": unseen.minimum,
                "unseen_loss_minimum_step": float(unseen.minimum_step),
                "unseen_loss_rise_z": unseen.z,
                "unseen_samples": float(unseen.samples),
            }
        return {name: value for name, value in numbers.items() if np.isfinite(value)}
