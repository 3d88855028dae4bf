"""Which samples of a group are memorized (paper §3.1): since when, offline, and how many, step by step.

Memorized at t*: the earliest step with loss <= ε and |loss − last loss| <= δ from there on, where
"last" is the newest observation. A sample has a t* exactly if its last loss is <= ε.
"""

from __future__ import annotations

import itertools
import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

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
    """The share of a group's samples that is memorized: by the newest loss of each, all that decides it.

    `epsilon` None = `auto`: the smallest multiple of 0.1 nats under which at least 20 % of the samples count
    as memorized (paper B.1), by the losses so far.
    """

    def __init__(self, epsilon: float | None) -> None:
        self._fixed_epsilon = epsilon
        self._step = -1
        self._ids_S = np.zeros(0, np.int64)
        self._steps_S = np.zeros(0, np.int64)
        """Of the newest loss."""
        self._losses_S = np.zeros(0, np.float64)

    def update(self, step: int, sample_ids_N: NDArray[np.integer], losses_N: NDArray[np.floating]) -> None:
        """Take in the losses of a window's samples, all different; NaN = none came. Steps rise strictly."""
        if step <= self._step:
            raise ValueError(f"step {step} does not come after step {self._step}")
        self._step = step
        came_N = ~np.isnan(losses_N)
        sample_ids_N, losses_N = sample_ids_N[came_N], losses_N[came_N]
        if np.array_equal(sample_ids_N, self._ids_S):  # as in nearly every window of a probe
            self._steps_S, self._losses_S = np.full(len(sample_ids_N), step), losses_N.astype(np.float64)
            return
        old_S = ~np.isin(self._ids_S, sample_ids_N)
        self._ids_S = np.concatenate([self._ids_S[old_S], sample_ids_N], dtype=np.int64)
        self._steps_S = np.concatenate([self._steps_S[old_S], np.full(len(sample_ids_N), step)])
        self._losses_S = np.concatenate([self._losses_S[old_S], losses_N], dtype=np.float64)
        if len(self._ids_S) > MAX_SAMPLES:
            newest = np.lexsort((self._ids_S, -self._steps_S))[:MAX_SAMPLES]
            self._ids_S, self._steps_S = self._ids_S[newest], self._steps_S[newest]
            self._losses_S = self._losses_S[newest]

    @property
    def epsilon(self) -> float | None:
        """ε in force, nats; None while it is `auto` and no loss has come."""
        if self._fixed_epsilon is not None or not len(self._losses_S):
            return self._fixed_epsilon
        return auto_epsilon(self._losses_S)

    @property
    def ratio(self) -> float | None:
        """Share of the samples that are memorized, 0 … 1; None while no loss has come."""
        epsilon = self.epsilon
        if epsilon is None or not len(self._losses_S):
            return None
        return float((self._losses_S <= epsilon).mean())
