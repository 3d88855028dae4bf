"""Held-out loss without held-out data: the loss of training samples before training reaches them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_UNSEEN = 8
"""Unseen samples below which their mean is not compared."""
SMOOTHED = 3
"""Windows averaged on either side of the comparison: single steps kick the loss of all samples at once."""
MIN_Z = 2.0
MIN_RISE = 0.005
"""Smallest rise that counts, relative to the minimum."""
RUNNING = 2
"""Comparisons in a row that must agree."""
MAX_POINTS = 128


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
    """The rise in standard errors of the paired difference."""


class UnseenLossGuard:
    """Compares the same still-unseen samples with their own past minimum.

    Samples leave as training reaches them; the rest is compared with exactly the rest's past. When too few
    are left (deferred samples released), the last comparison stands.
    """

    def __init__(self) -> None:
        self._ids_N: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._losses_TN: NDArray[np.float64] = np.empty((0, 0))
        self._steps: list[int] = []
        self._agreeing = 0
        self.newest: UnseenLoss | None = None
        """The last comparison; None while there was none."""
        self.watching = False
        """Whether the newest window had enough unseen samples."""
        self.overfitting = False
        """Whether unseen loss had risen for good when last compared."""

    @property
    def curve(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Steps and mean losses of the samples that were unseen last."""
        return np.array(self._steps, dtype=np.int64), self._losses_TN.mean(axis=1)

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
        kept_N, old, new = np.intersect1d(self._ids_N, ids_N, assume_unique=True, return_indices=True)
        if len(kept_N) < MIN_UNSEEN:  # other samples than before: their past is not known
            kept_N, new = ids_N, np.arange(len(ids_N))
            self._steps, self._losses_TN = [], np.empty((0, len(ids_N)))
        else:
            self._losses_TN = self._losses_TN[:, old]
        self._ids_N = kept_N
        self._steps.append(step)
        self._losses_TN = np.vstack([self._losses_TN, losses_N[new]])
        self._compare()
        if len(self._steps) > MAX_POINTS:
            self._thin()

    def _compare(self) -> None:
        if len(self._steps) < 2 * SMOOTHED:
            return
        smooth_TN = np.lib.stride_tricks.sliding_window_view(self._losses_TN, SMOOTHED, axis=0).mean(axis=-1)
        means_T = smooth_TN.mean(axis=1)
        best = int(means_T[:-SMOOTHED].argmin())
        change_N = smooth_TN[-1] - smooth_TN[best]
        stderr = float(change_N.std(ddof=1)) / np.sqrt(len(change_N))
        change = float(change_N.mean())
        self.newest = UnseenLoss(
            samples=len(change_N),
            loss=float(means_T[-1]),
            minimum=float(means_T[best]),
            minimum_step=self._steps[best + SMOOTHED // 2],
            rise=change / max(float(means_T[best]), 1e-9),
            z=change / max(stderr, 1e-12),
        )
        risen = self.newest.z >= MIN_Z and self.newest.rise >= MIN_RISE
        self._agreeing = self._agreeing + 1 if risen else 0
        if self._agreeing >= RUNNING:
            self.overfitting = True
        elif self.newest.rise < MIN_RISE:
            self.overfitting = False

    def _thin(self) -> None:
        """Merge neighbours of the older half: memory stays bounded, the recent past exact."""
        half = len(self._steps) // 4 * 2
        merged_TN = (self._losses_TN[0:half:2] + self._losses_TN[1:half:2]) / 2
        self._losses_TN = np.vstack([merged_TN, self._losses_TN[half:]])
        self._steps = self._steps[1:half:2] + self._steps[half:]
