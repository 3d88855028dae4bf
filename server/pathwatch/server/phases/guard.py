"""Held-out loss without held-out data: the loss of training samples before training reaches them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.phases.clock import Bins

MIN_UNSEEN = 8
"""Unseen samples below which their mean is not compared."""
SMOOTHED = 3
"""Windows averaged on either side of the comparison: single steps kick the loss of all samples at once."""
MIN_Z = 2.5
"""Standard errors a rise must be, …"""
MIN_RISE = 0.005
"""… and the least it must be relative to the minimum, …"""
RUNNING = 3
"""… in this many comparisons in a row: the first and the last average other windows, but for one."""
MAX_BINS = 128
"""Time bins kept of the samples' losses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnseenLoss:
    """What the unseen samples say at one step."""

    samples: int
    loss: float
    """Mean loss of the samples still unseen, nats, smoothed."""
    minimum: float
    """Smallest smoothed loss the same samples had before."""
    minimum_step: int
    rise: float
    """loss − minimum, relative to the minimum."""
    z: float
    """The rise in standard errors, those of the paired difference over samples and of single steps."""


class UnseenLossGuard:
    """Compares the same still-unseen samples with their own past minimum.

    Samples leave as training reaches them; the rest is compared with exactly the rest's past. When too few
    are left (deferred samples released), the last comparison stands. The curve, which is for choosing among
    checkpoints, adds up changes instead, each over all samples that were unseen through it: the few left last
    must not say alone where the minimum was.
    """

    def __init__(self) -> None:
        self._ids_N: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._losses_N: NDArray[np.float64] = np.empty(0)
        self._bins = Bins(limit=MAX_BINS)
        self._level = 0.0
        self._levels = Bins(limit=MAX_BINS)
        self._agreeing = 0
        self.newest: UnseenLoss | None = None
        """The last comparison; None while there was none."""
        self.watching = False
        """Whether the newest window had enough unseen samples."""
        self.overfitting = False
        """Whether unseen loss had risen for good when last compared."""

    @property
    def curve(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Steps and mean loss of the first unseen samples, carried on by changes of those still unseen."""
        return self._levels.steps, self._levels.means[:, 0]

    def take(
        self,
        step: int,
        sample_ids_N: NDArray[np.int64],
        losses_N: NDArray[np.float64],
        visits_N: NDArray[np.int32],
    ) -> None:
        """Take in a window's losses; ids ascending."""
        unseen_N = visits_N == 0
        ids_N, losses_N = sample_ids_N[unseen_N], losses_N[unseen_N]
        self.watching = len(ids_N) >= MIN_UNSEEN
        if not self.watching:
            return
        if np.array_equal(ids_N, self._ids_N):  # as in nearly every window of a probe
            self._level += float((losses_N - self._losses_N).mean())
        else:
            ids_N, losses_N = self._of_known(ids_N, losses_N)
        self._ids_N, self._losses_N = ids_N, losses_N
        self._levels.add(step, np.array([self._level]))
        if self._bins.add(step, losses_N) and len(self._bins) >= 2 * SMOOTHED:
            self._compare(self._bins.steps, self._bins.means)

    def _of_known(
        self, ids_N: NDArray[np.int64], losses_N: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Those whose past is known, and only their past; too few: all, without a past."""
        kept_N, old, new = np.intersect1d(self._ids_N, ids_N, assume_unique=True, return_indices=True)
        if len(kept_N) < MIN_UNSEEN:
            self._bins, self._levels = Bins(limit=MAX_BINS), Bins(limit=MAX_BINS)
            self._level = float(losses_N.mean())
            return ids_N, losses_N
        self._bins.keep(old)
        self._level += float((losses_N[new] - self._losses_N[old]).mean())
        return kept_N, losses_N[new]

    def _compare(self, steps_T: NDArray[np.int64], losses_TN: NDArray[np.float64]) -> None:
        smooth_TN = np.lib.stride_tricks.sliding_window_view(losses_TN, SMOOTHED, axis=0).mean(axis=-1)
        means_T = smooth_TN.mean(axis=1)
        best = int(means_T[:-SMOOTHED].argmin())
        change_N = smooth_TN[-1] - smooth_TN[best]
        of_samples = float(change_N.var(ddof=1)) / len(change_N)
        of_steps = 2 * step_noise(losses_TN.mean(axis=1)) ** 2 / SMOOTHED
        stderr = np.sqrt(of_samples + of_steps)
        change = float(change_N.mean())
        self.newest = UnseenLoss(
            samples=len(change_N),
            loss=float(means_T[-1]),
            minimum=float(means_T[best]),
            minimum_step=int(steps_T[best + SMOOTHED // 2]),
            rise=change / max(float(means_T[best]), 1e-9),
            z=change / max(stderr, 1e-12),
        )
        risen = self.newest.z >= MIN_Z and self.newest.rise >= MIN_RISE
        self._agreeing = self._agreeing + 1 if risen else 0
        if self._agreeing >= RUNNING:
            self.overfitting = True
        elif self.newest.rise < MIN_RISE:
            self.overfitting = False


def step_noise(means_T: NDArray[np.float64]) -> float:
    """Standard deviation by which single steps kick the mean loss, whatever its trend.

    From second differences (of white noise, √6 times its deviation), robustly (median, 0.6745 for a normal).
    """
    kicks = np.abs(np.diff(means_T, 2))
    return float(np.median(kicks) / (0.6745 * np.sqrt(6)))
