"""What a rank holds back of one group's window: what is still of use, and how far it is asked for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pathwatch.client.observations import Observations

ALL = 2**64 - 1
"""The largest hash: a request through it asks for every sample."""
_SPARSE = 2
"""Blocks are copied together once they hold this many times the rows that are of use."""


class HeldGroup:
    """Shape letters: S rows held, one for each observation; N observations that come.

    A rank's own bottom-k is enough: a sample that `capacity` others of the same rank precede is never kept.
    Of a sample that was observed again at a later step the older observation is of no use.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._hashes_S = np.zeros(0, np.uint64)
        self._steps_S = np.zeros(0, np.int64)
        self._block_S = np.zeros(0, np.int64)
        self._row_S = np.zeros(0, np.int64)
        self._blocks: dict[int, Observations] = {}
        self._blocks_made = 0
        self._sent: set[int] = set()
        self._limit = ALL + 1
        self.through = -1
        """Samples up to this hash are asked for; −1 = none are."""
        self.late = False
        """What is asked for is kept until the window's end all the same: samples are likely to come again."""
        self.repeated = False
        """Whether a sample came more than once."""
        self.nbytes = 0
        """Bytes of what is held, with rows that are of no use any more."""

    def __len__(self) -> int:
        """Observations held."""
        return self._hashes_S.size

    @property
    def samples(self) -> int:
        """Different samples held."""
        return int(np.unique(self._hashes_S).size)

    def offer(self, observations: Observations, hashes_N: NDArray[np.uint64]) -> Observations | None:
        """Take in observations of a step; those of them that are to be sent now, None = none."""
        known_S = np.isin(self._hashes_S, hashes_N)
        self.repeated |= bool(known_S.any()) or not self._sent.isdisjoint(hashes_N.tolist())
        if known_S.any():
            self._keep(~known_S | (self._steps_S >= observations.step))
        wanted_N = _below(hashes_N, self._limit)
        now_N = wanted_N & _below(hashes_N, 0 if self.late else self.through + 1)
        self._hold(observations, hashes_N, np.flatnonzero(wanted_N & ~now_N))
        if len(self) > 2 * self._capacity:
            kept_S = np.unique(self._hashes_S)
            if kept_S.size > self._capacity:
                self.cut(int(kept_S[self._capacity - 1]) + 1)
        self._sent.update(hashes_N[now_N].tolist())
        return observations.select(np.flatnonzero(now_N)) if now_N.any() else None

    def cut(self, limit: int) -> None:
        """Samples with a hash at or above `limit` are of no use."""
        self._limit = min(self._limit, limit)
        self._keep(_below(self._hashes_S, self._limit))

    def take(self, most: int) -> list[Observations]:
        """Up to `most` observations that are asked for; they are no longer held."""
        taken_S = np.flatnonzero(_below(self._hashes_S, self.through + 1))[:most]
        taken = []
        for block in np.unique(self._block_S[taken_S]).tolist():
            rows_S = taken_S[self._block_S[taken_S] == block]
            taken.append(self._blocks[block].select(self._row_S[rows_S]))
        self._sent.update(self._hashes_S[taken_S].tolist())
        keep_S = np.ones(len(self), np.bool_)
        keep_S[taken_S] = False
        self._keep(keep_S)
        return taken

    def _hold(
        self, observations: Observations, hashes_N: NDArray[np.uint64], rows_N: NDArray[np.intp]
    ) -> None:
        if not rows_N.size:
            return
        block, self._blocks_made = self._blocks_made, self._blocks_made + 1
        self._blocks[block] = observations.select(rows_N)
        self.nbytes += self._blocks[block].nbytes
        n = rows_N.size
        self._hashes_S = np.concatenate([self._hashes_S, hashes_N[rows_N]])
        self._steps_S = np.concatenate([self._steps_S, np.full(n, observations.step)])
        self._block_S = np.concatenate([self._block_S, np.full(n, block)])
        self._row_S = np.concatenate([self._row_S, np.arange(n)])

    def _keep(self, keep_S: NDArray[np.bool_]) -> None:
        if keep_S.all():
            return
        self._hashes_S, self._steps_S = self._hashes_S[keep_S], self._steps_S[keep_S]
        self._block_S, self._row_S = self._block_S[keep_S], self._row_S[keep_S]
        if _SPARSE * len(self) < sum(block.samples for block in self._blocks.values()):
            self._compact()

    def _compact(self) -> None:
        for number in list(self._blocks):
            of_block_S = np.flatnonzero(self._block_S == number)
            block = self._blocks[number]
            if of_block_S.size == block.samples:
                continue
            self.nbytes -= block.nbytes
            if not of_block_S.size:
                del self._blocks[number]
                continue
            self._blocks[number] = block.select(self._row_S[of_block_S])
            self._row_S[of_block_S] = np.arange(of_block_S.size)
            self.nbytes += self._blocks[number].nbytes


def _below(hashes_S: NDArray[np.uint64], limit: int) -> NDArray[np.bool_]:
    """Whether each is below a limit in 0 … 2**64, which uint64 cannot hold."""
    if limit > ALL:
        return np.ones(hashes_S.size, np.bool_)
    return hashes_S < np.uint64(max(0, limit))
