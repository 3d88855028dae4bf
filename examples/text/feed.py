"""What a group trains on, in which order, and how often each sample has been trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Feed:
    """A group's samples, 0 … size − 1, in passes of random order; the last `deferred` are kept back at first.

    A single pass is a feed with as many samples as will be taken.
    """

    def __init__(self, size: int, deferred: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._released = size - deferred
        self._queue = rng.permutation(self._released)
        self.visits_N: NDArray[np.int32] = np.zeros(size, dtype=np.int32)
        """How often each sample has been taken."""
        self.latest_N: NDArray[np.int64] = np.full(size, -1, dtype=np.int64)
        """In which call of `take` each was taken last; -1 = never."""
        self._calls = 0

    def release(self) -> None:
        """From now on the deferred samples are like any other; the pass under way takes them in."""
        deferred = np.arange(self._released, len(self.visits_N))
        self._released = len(self.visits_N)
        self._queue = self._rng.permutation(np.concatenate([self._queue, deferred]))

    def take(self, count: int) -> NDArray[np.intp]:
        """The next samples to train on."""
        while len(self._queue) < count:
            self._queue = np.concatenate([self._queue, self._rng.permutation(self._released)])
        taken, self._queue = self._queue[:count], self._queue[count:]
        np.add.at(self.visits_N, taken, 1)
        self.latest_N[taken] = self._calls
        self._calls += 1
        return taken

    def probe(self, size: int, deferred: int) -> NDArray[np.intp]:
        """A fixed choice of samples to re-read: all deferred ones among them."""
        others = self._rng.choice(len(self.visits_N) - deferred, size - deferred, replace=False)
        return np.concatenate([np.sort(others), np.arange(len(self.visits_N) - deferred, len(self.visits_N))])
