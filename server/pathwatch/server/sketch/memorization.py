"""Which samples of a group are memorized, and since when (paper §3.1): offline, and step by step.

Memorized at t*: the earliest step with loss <= ε and |loss − last loss| <= δ from there on, where
"last" is the newest observation. A sample has a t* exactly if its last loss is <= ε.
"""

from __future__ import annotations

import itertools
import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.sketch.loss_trail import LossTrail

AUTO_PER_NAT: Final = 10
"""`auto` ε is a multiple of 1/10 nats (paper B.1)."""

MAX_SAMPLES: Final = 8192
"""Samples a tracker remembers; beyond, those not seen for longest go (of equal age the larger ids)."""


def memorized_step(
    losses_NT: NDArray[np.floating], steps_T: NDArray[np.integer], epsilon: float, delta: float
) -> NDArray[np.int64]:
    """[N] t* of each sample, −1 = not memorized (paper §3.1; ε and δ in nats, both inclusive).

    `losses_NT`: one row per sample, NaN where it was not observed; `steps_T` ascending.
    """
    losses_NT = np.asarray(losses_NT, np.float64)
    steps_T = np.asarray(steps_T, np.int64)
    result_N = np.full(len(losses_NT), -1, np.int64)
    for n, losses_T in enumerate(losses_NT):
        seen_T = np.flatnonzero(~np.isnan(losses_T))
        if not seen_T.size:
            continue
        losses = losses_T[seen_T]
        wrong = np.flatnonzero(~((losses <= epsilon) & (np.abs(losses - losses[-1]) <= delta)))
        first = wrong[-1] + 1 if wrong.size else 0
        if first < losses.size:
            result_N[n] = steps_T[seen_T[first]]
    return result_N


def auto_epsilon(last_losses_N: NDArray[np.floating]) -> float:
    """`auto` ε, nats: the smallest multiple of 0.1 that at least 20 % of the last losses do not exceed.

    A sample is memorized exactly if its last loss is at most ε, so that at least a fifth of the samples
    count as memorized (paper B.1 wants 20 to 25 %). At least one loss, none of them NaN.
    """
    losses = np.sort(last_losses_N)
    fifth = float(losses[-(-len(losses) // 5) - 1])
    # The product is rounded: the multiple below it may do already, or itself just not do.
    first = max(1, math.ceil(fifth * AUTO_PER_NAT) - 1)
    multiples = (units / AUTO_PER_NAT for units in itertools.count(first))
    return next(epsilon for epsilon in multiples if epsilon >= fifth)


class MemorizationTracker:
    """`memorized_step` of all losses so far without keeping them: memory grows with samples, not with time.

    One tracker per group. `epsilon` None = `auto`: the smallest multiple of 0.1 nats under which at
    least 20 % of the samples count as memorized (paper B.1), by the losses so far.
    """

    def __init__(self, epsilon: float | None, delta: float) -> None:
        self._fixed_epsilon = epsilon
        self._delta = delta
        self._step = -1
        self._trails: dict[int, LossTrail] = {}

    def update(self, step: int, sample_ids_N: NDArray[np.integer], losses_N: NDArray[np.floating]) -> None:
        """Take in the losses of a window (NaN = none came). Steps must rise strictly."""
        if step <= self._step:
            raise ValueError(f"step {step} does not come after step {self._step}")
        self._step = step
        least_epsilon = 1 / AUTO_PER_NAT if self._fixed_epsilon is None else self._fixed_epsilon
        for sample_id, loss in zip(sample_ids_N.tolist(), losses_N.tolist(), strict=True):
            if math.isnan(loss):
                continue
            trail = self._trails.get(sample_id)
            if trail is None:
                self._trails[sample_id] = LossTrail(step, loss)
            else:
                trail.append(step, loss, delta=self._delta, least_epsilon=least_epsilon)
        if len(self._trails) > MAX_SAMPLES:
            by_age = sorted(self._trails, key=lambda sample_id: (-self._trails[sample_id].step, sample_id))
            for sample_id in by_age[MAX_SAMPLES:]:
                del self._trails[sample_id]

    @property
    def epsilon(self) -> float | None:
        """ε in force, nats; None while it is `auto` and no loss has come."""
        if self._fixed_epsilon is not None or not self._trails:
            return self._fixed_epsilon
        return auto_epsilon(self._last_losses())

    @property
    def ratio(self) -> float | None:
        """Share of the samples that are memorized, 0 … 1; None while no loss has come."""
        epsilon = self.epsilon
        if epsilon is None or not self._trails:
            return None
        return float((self._last_losses() <= epsilon).mean())

    def memorized_steps(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sample ids, ascending, and their t*; −1 = not memorized."""
        epsilon = self.epsilon
        if epsilon is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        sample_ids = sorted(self._trails)
        steps = [self._trails[sample_id].memorized_step(epsilon, self._delta) for sample_id in sample_ids]
        return np.array(sample_ids, np.int64), np.array(steps, np.int64)

    def _last_losses(self) -> NDArray[np.float64]:
        return np.array([trail.loss for trail in self._trails.values()])
