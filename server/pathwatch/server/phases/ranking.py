"""Which checkpoint to keep: loss on training's own samples where routing says it may be trusted.

Scores are nats above the best seen, lower = better, so that groups add up. A checkpoint that a group rules
out scores `RULED_OUT` more. Between checkpoints that all generalize, training loss follows accuracy's noise
(docs/science.md: correlation −0.5, −0.9 in a collapse); before that it misleads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.phases.clock import Bins
from pathwatch.server.phases.verdict import Checkpoint, RankedCheckpoint

RULED_OUT = 10.0
"""Penalty of a checkpoint that should not be taken, in nats: no loss difference makes up for it."""
RECENT_SHARE = 0.5
"""Of the time since onset: earlier checkpoints have not generalized as far."""
AGE_WEIGHT = 1.0
"""A checkpoint at the start of the recent stretch must have a log loss this many standard deviations of the
stretch below that of the newest: accuracy still creeps up while training loss only scatters."""
SMOOTHED_TRAINING = 5
"""Windows a training loss is averaged over."""
SMOOTHED_UNSEEN = 3
"""Windows an unseen loss is averaged over; its samples are the same ones, which leaves less noise."""
MAX_LOSSES = 2048


class LossHistory:
    """Mean training loss per step; past `MAX_LOSSES` windows, means of neighbouring ones."""

    def __init__(self) -> None:
        self._bins = Bins(limit=MAX_LOSSES)

    def __len__(self) -> int:
        return len(self._bins)

    def take(self, step: int, loss: float) -> None:
        """Take in the loss of a window."""
        self._bins.add(step, np.array([loss]))

    @property
    def curve(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Steps and losses."""
        return self._bins.steps, self._bins.means[:, 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One group's opinion of C checkpoints."""

    nats_C: NDArray[np.float64]
    allowed_C: NDArray[np.bool_]
    reason: str
    """Why the allowed ones stand where they do."""
    ruled_out: str
    """Why the others were ruled out."""
    settled: bool
    """Whether the group tells checkpoints apart; else it prefers the newest."""
    aside_C: NDArray[np.float64] | None = None
    """What a group that does not tell them apart adds when others do; None = nothing."""


def newest_first(steps_C: NDArray[np.int64], learning: LossHistory | None = None) -> Scores:
    """For a group that does not tell checkpoints apart: the newest has been trained longest.

    `learning` is the loss of a group that still learns: beside groups that want an older checkpoint, it says
    what going back would cost it.
    """
    aside_C = None
    if learning:
        losses_C = smoothed_at(learning.curve, SMOOTHED_TRAINING, steps_C)
        aside_C = losses_C - losses_C.min()
    reason = "newest first: the group has not generalized, nothing tells its checkpoints apart yet"
    return Scores(
        nats_C=_age(steps_C),
        allowed_C=np.ones(len(steps_C), dtype=np.bool_),
        reason=reason,
        ruled_out=reason,
        settled=False,
        aside_C=aside_C,
    )


def by_training_loss(
    steps_C: NDArray[np.int64], losses: LossHistory, *, onset_step: int, step: int, collapsed: bool
) -> Scores:
    """For a group that generalizes: smallest training loss among the checkpoints late enough after onset."""
    first = onset_step if collapsed else step - RECENT_SHARE * (step - onset_step)
    allowed_C = steps_C >= first
    losses_C = smoothed_at(losses.curve, SMOOTHED_TRAINING, steps_C)
    spread = float(np.log(losses_C[allowed_C]).std()) if allowed_C.any() else 0.0
    age_C = np.clip((step - steps_C) / max(step - first, 1), 0, 1)
    losses_C = losses_C * np.exp(AGE_WEIGHT * spread * age_C)
    where = "since it generalizes" if collapsed else "in the last half of the time since it generalizes"
    return Scores(
        nats_C=_with_ruled_out(losses_C, allowed_C, steps_C),
        allowed_C=allowed_C,
        reason=f"small training loss, late, {where} (onset at step {onset_step})",
        ruled_out=f"from before step {int(first)}: had not generalized as far",
        settled=True,
    )


def by_unseen_loss(
    steps_C: NDArray[np.int64], curve: tuple[NDArray[np.int64], NDArray[np.float64]]
) -> Scores:
    """For an overfitting group: smallest loss on the samples training had not seen."""
    steps_T, _ = curve
    allowed_C = (steps_C >= steps_T[0]) & (steps_C <= steps_T[-1])
    return Scores(
        nats_C=_with_ruled_out(smoothed_at(curve, SMOOTHED_UNSEEN, steps_C), allowed_C, steps_C),
        allowed_C=allowed_C,
        reason="smallest loss on training samples not yet seen",
        ruled_out="its unseen loss is not known",
        settled=True,
    )


def combine(scores: Sequence[Scores]) -> Scores:
    """The overall opinion: nats averaged over the groups that have something to say, else the newest."""
    settled = [score for score in scores if score.settled]
    if not settled or len(scores) == 1:
        return scores[0]
    nats_GC = [score.nats_C for score in settled] + [s.aside_C for s in scores if s.aside_C is not None]
    return Scores(
        nats_C=np.mean(nats_GC, axis=0),
        allowed_C=np.all([score.allowed_C for score in settled], axis=0),
        reason=f"smallest loss above each group's best, averaged over {len(nats_GC)} groups",
        ruled_out="ruled out by a group: it had not generalized as far, or its unseen loss is not known",
        settled=True,
    )


def ranked(checkpoints: Sequence[Checkpoint], scores: Scores) -> list[RankedCheckpoint]:
    """Checkpoints best first; of equals the newer first."""
    steps_C = np.array([checkpoint.step for checkpoint in checkpoints])
    order_C = np.lexsort((-steps_C, scores.nats_C))
    return [
        RankedCheckpoint(
            checkpoint=checkpoints[i],
            score=float(scores.nats_C[i]),
            reason=scores.reason if scores.allowed_C[i] else scores.ruled_out,
        )
        for i in order_C
    ]


def smoothed_at(
    curve: tuple[NDArray[np.int64], NDArray[np.float64]], points: int, steps_C: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Loss of the nearest entry at or before each step (else the first), averaged geometrically over `points`
    entries about it: a checkpoint amid bad ones, before a collapse for instance, was good by luck."""
    steps_T, losses_T = curve
    half = points // 2
    padded = np.pad(np.log(np.maximum(losses_T, 1e-6)), half, mode="edge")
    smooth_T: NDArray[np.float64] = np.exp(
        np.mean(np.lib.stride_tricks.sliding_window_view(padded, points), axis=1)
    )
    return smooth_T[np.maximum(np.searchsorted(steps_T, steps_C, side="right") - 1, 0)]


def _with_ruled_out(
    losses_C: NDArray[np.float64], allowed_C: NDArray[np.bool_], steps_C: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Excess over the best allowed loss; ruled-out ones behind all of them, newest first."""
    best = losses_C[allowed_C].min(initial=np.inf)
    return np.where(allowed_C, losses_C - (best if np.isfinite(best) else 0.0), RULED_OUT + _age(steps_C))


def _age(steps_C: NDArray[np.int64]) -> NDArray[np.float64]:
    """0 for the newest, towards 1 for older ones."""
    age_C: NDArray[np.float64] = 1.0 - steps_C / max(int(steps_C.max(initial=0)), 1)
    return age_C
