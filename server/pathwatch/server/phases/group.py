"""One group's evidence so far, and what to say about it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.phases.drop import MIN_BINS, DropWatch, Stage
from pathwatch.server.phases.evidence import Reading
from pathwatch.server.phases.guard import UnseenLossGuard
from pathwatch.server.phases.memorized import FITTED_LOSS, FITTED_SHARE, FittedShare
from pathwatch.server.phases.ranking import (
    LossHistory,
    Scores,
    by_training_loss,
    by_unseen_loss,
    newest_first,
)
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
    """Takes in a group's windows; `take` for all groups of a round, then `conclude`."""

    def __init__(self) -> None:
        self._fitted = FittedShare()
        self._guard = UnseenLossGuard()
        self._losses = LossHistory()
        self._newest: Reading | None = None
        self._watch: DropWatch | None = None
        self._by_target = False
        self._points = 0
        self._newest_step = -1
        self._knows_visits = False
        self.verdict: GroupVerdict | None = None

    @property
    def drop(self) -> float:
        """How far the group's routing has come to be shared; 0 = not at all."""
        return max(0.0, self._watch.drop.size) if self._watch and self._watch.drop else 0.0

    def take(self, step: int, reading: Reading) -> None:
        """Take in a window. One that equals the last, of a model that has not moved, adds nothing."""
        self._newest_step = step
        if self._newest is not None and reading.same_as(self._newest):
            return
        self._newest = reading
        self._points += 1
        if len(reading.losses_N):
            self._losses.take(step, float(reading.losses_N.mean()))
        self._knows_visits = self._knows_visits or bool((reading.visits_N >= 0).any())
        self._guard.take(step, reading.sample_ids_N, reading.losses_N, reading.visits_N)
        self._fitted.take(step, reading.losses_N)
        if self._watch is None and self._fitted.since_step is not None:
            self._watch = DropWatch(self._fitted.points)
        if self._watch is not None:
            self._by_target = reading.by_target
            self._watch.add(step, reading)

    def conclude(self, step: int, largest_other: float) -> GroupVerdict:
        """The verdict after a window; `largest_other` is the largest drop of the run's other groups."""
        if self._watch is not None:
            self._watch.judge(step, largest_other, may_settle=self._by_target or self._guard.watching)
        phase = self._phase()
        before = self.verdict
        self.verdict = GroupVerdict(
            phase=phase,
            since_step=before.since_step if before is not None and before.phase is phase else step,
            reason=self._reason(phase, largest_other),
            numbers=self._numbers(largest_other),
        )
        return self.verdict

    def scores(self, steps_C: NDArray[np.int64]) -> Scores:
        """The group's opinion of checkpoints at these steps."""
        if self._guard.overfitting:
            return by_unseen_loss(steps_C, self._guard.curve)
        watch = self._watch
        if watch is not None and watch.onset_step is not None:
            return by_training_loss(
                steps_C,
                self._losses,
                onset_step=watch.onset_step,
                step=self._newest_step,
                collapsed=watch.collapsed_once,
            )
        return newest_first(steps_C, "newest: the group has not generalized, nothing tells them apart yet")

    def _phase(self) -> Phase:
        if self._points < MIN_POINTS:
            return Phase.UNKNOWN
        if self._guard.overfitting:
            return Phase.OVERFITTING
        return Phase.LEARNING if self._watch is None else _OF_STAGE[self._watch.stage]

    def _numbers(self, largest_other: float) -> dict[str, float]:
        numbers = {"fitted_share": self._fitted.share, "largest_other_drop": largest_other}
        if self._fitted.since_step is not None:
            numbers["memorized_step"] = float(self._fitted.since_step)
            numbers["routing_by_target"] = float(self._by_target)
        if self._watch is not None and self._watch.drop is not None:
            drop = self._watch.drop
            numbers |= {"drop": drop.size, "drop_net": drop.net, "drop_stderr": drop.stderr}
            if self._watch.onset_step is not None:
                numbers["onset_step"] = float(self._watch.onset_step)
        if (unseen := self._guard.newest) is not None:
            numbers |= {
                "unseen_loss": unseen.loss,
                "unseen_loss_minimum": unseen.minimum,
                "unseen_loss_minimum_step": float(unseen.minimum_step),
                "unseen_loss_rise_z": unseen.z,
                "unseen_samples": float(unseen.samples),
            }
        return {name: value for name, value in numbers.items() if np.isfinite(value)}

    def _reason(self, phase: Phase, largest_other: float) -> str:
        if phase is Phase.UNKNOWN:
            return f"Only {self._points} of {MIN_POINTS} windows needed so far."
        if phase is Phase.OVERFITTING:
            return self._overfitting_reason()
        if phase is Phase.LEARNING:
            return (
                f"{self._fitted.share:.0%} of the training samples are fitted (loss under {FITTED_LOSS:.2f}); "
                f"memorized would be {FITTED_SHARE:.0%}. {self._unseen_reason()}"
            )
        return f"{self._routing_reason(phase, largest_other)} {self._unseen_reason()}"

    def _routing_reason(self, phase: Phase, largest_other: float) -> str:
        assert self._watch is not None
        drop = self._watch.drop
        if drop is None:
            return f"Fitted since step {self._fitted.since_step}; fewer than {MIN_BINS} time bins since to compare."
        what = "samples with the same target" if self._by_target else "samples"
        moved = f"routing of {what} has drawn together by {drop.size:.2f} (log; ± {drop.stderr:.2f})"
        if phase is Phase.MEMORIZED:
            behind = f", the run's other groups by up to {largest_other:.2f}" if largest_other > 0 else ""
            return f"Fitted since step {self._fitted.since_step}; {moved}{behind}: not enough to speak of sharing."
        if phase is Phase.GENERALIZING:
            tail = (
                ""
                if self._by_target
                else " Without targets or unseen samples this is never taken as finished."
            )
            return f"Since step {self._watch.onset_step} {moved}, and has not settled.{tail}"
        if phase is Phase.GENERALIZED:
            return f"Since step {self._watch.onset_step} {moved}, and has settled."
        return f"Training loss rose to {drop.loss:.2f} from {drop.loss_before:.2f} before onset, after sharing began."

    def _overfitting_reason(self) -> str:
        unseen = self._guard.newest
        assert unseen is not None
        until = "" if self._guard.watching else " when they were last unseen"
        return (
            f"Loss of {unseen.samples} training samples not yet trained on was {unseen.loss:.3f}{until}, "
            f"{unseen.rise:.1%} over its minimum at step {unseen.minimum_step} (z = {unseen.z:.1f})."
        )

    def _unseen_reason(self) -> str:
        if not self._knows_visits:
            return "Overfitting cannot be seen: no visits were reported."
        if self._guard.newest is None:
            return "Overfitting cannot be seen: too few samples were followed before training reached them."
        unseen = self._guard.newest
        if not self._guard.watching:
            return "Unseen loss had not risen when its samples were released."
        return f"Unseen loss {unseen.loss:.3f}, smallest {unseen.minimum:.3f} at step {unseen.minimum_step}."
