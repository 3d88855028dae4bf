"""A clock without a unit: time in bins of log points that widen as time passes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_BINS = 96
"""Bins kept; past it neighbours merge and a bin covers twice as much: 1 to 2 % of the time passed."""


class Bins:
    """Means of log points over equal stretches; memory is bounded, however long the run.

    `width` is the number of log points a bin starts with, `limit` the number of bins kept.
    """

    def __init__(self, width: int = 1, limit: int = MAX_BINS) -> None:
        self._width = width
        self._limit = limit
        self._steps: list[int] = []
        self._means: list[NDArray[np.float64]] = []
        self._open: list[NDArray[np.float64]] = []

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: int, values: NDArray[np.float64]) -> bool:
        """Take in a log point; True when it completed a bin."""
        self._open.append(values)
        if len(self._open) < self._width:
            return False
        self._steps.append(step)
        self._means.append(np.mean(self._open, axis=0))
        self._open.clear()
        if len(self._steps) > self._limit:
            self._halve()
        return True

    def keep(self, entries_N: NDArray[np.intp]) -> None:
        """Go on with these entries (first axis) of the values only."""
        self._means = [mean[entries_N] for mean in self._means]
        self._open = [values[entries_N] for values in self._open]

    @property
    def steps(self) -> NDArray[np.int64]:
        """Last step of each complete bin."""
        return np.array(self._steps, dtype=np.int64)

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean of each complete bin, [bins, values]."""
        return np.array(self._means)

    def _halve(self) -> None:
        even = len(self._steps) // 2 * 2
        # An odd bin left over is half of the next.
        self._open = [*(self._means[even:] * self._width), *self._open]
        self._steps = self._steps[1:even:2]
        self._means = [(a + b) / 2 for a, b in zip(self._means[:even:2], self._means[1:even:2], strict=True)]
        self._width *= 2
