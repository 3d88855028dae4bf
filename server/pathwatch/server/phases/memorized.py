"""When a group's training samples count as fitted."""

from __future__ import annotations

import statistics
from collections import deque

import numpy as np
from numpy.typing import NDArray

FITTED_LOSS = float(np.log(2))
"""Nats under which the right token has more than even odds: no other can be likelier."""
FITTED_SHARE = 0.75
"""Share of samples that must be fitted; 0.9 finds groups that stay noisy (top-1 routing) too late."""
SMOOTHED = 3
"""Windows whose median counts."""


class FittedShare:
    """Share of fitted samples, median of the last three windows; latches when it reaches `FITTED_SHARE`."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=SMOOTHED)
        self.points = 0
        """Windows seen until the group was memorized."""
        self.since_step: int | None = None
        """Step at which it was; None = not yet."""

    @property
    def share(self) -> float:
        """The smoothed share; NaN before the first window."""
        return statistics.median(self._recent) if self._recent else float("nan")

    def take(self, step: int, losses_N: NDArray[np.float64]) -> None:
        """Take in a window's losses."""
        if not len(losses_N):
            return
        self._recent.append(float(np.mean(losses_N < FITTED_LOSS)))
        if self.since_step is None:
            self.points += 1
            if len(self._recent) == SMOOTHED and self.share >= FITTED_SHARE:
                self.since_step = step
