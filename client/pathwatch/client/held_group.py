"""What a rank holds back of one group's window: what is still of use, and how far it is asked for."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.ma  # np.unique would import it when first called, in the middle of a step
from numpy.typing import NDArray

from pathwatch.client.messages import OVERHEAD
from pathwatch.client.observations import Observations

ALL = 2**64 - 1
"""The largest hash: a request through it asks for every sample."""
_MOST_SAMPLES = 2**32 - 1
_SPARSE = 2
"""Rows are given back once there are this many times those that are of use."""
_DROPPED_AT_ONCE = 64
_COPIED_AT_ONCE = 32 << 10
"""Blocks dropped and bytes copied for that in one call; at least one block is copied."""


class HeldGroup:
    """Shape letters: S rows held, one for each observation; T of them taken; N observations that come.

    A rank's own bottom-k is enough: a sample that `capacity` others of the same rank precede is never kept.
    Of a sample that was observed again at a later step the older observation is of no use.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._hashes_S = np.zeros(0, np.uint64)
        self._place_3S = np.zeros((3, 0), np.int64)
        """Step, number of the block (which never falls) and row in it: one array is put together sooner."""
        self._blocks: dict[int, Observations] = {}
        self._blocks_made = 0
        self._rows = 0  # of all blocks
        self._sent: set[int] = set()
        self._limit = ALL + 1
        self.through = -1
        """Samples up to this hash are asked for; −1 = none are."""
        self.late = False
        """What is asked for is kept until the window's end all the same: samples are likely to come again."""
        self.repeated = False
        """Whether a sample came more than once."""
        self.nbytes = 0
        """Bytes of what is held, with rows that are of no use any more and what small arrays take beside."""

    def __len__(self) -> int:
        """Observations held."""
        return self._hashes_S.size

    @property
    def samples(self) -> int:
        """Different samples held; with those that were cut off, as far as the density of the rest tells.

        From it the server reckons which hash enough samples of all ranks are below.
        """
        return min(_MOST_SAMPLES, int(np.unique(self._hashes_S).size / max(1, self._limit) * (ALL + 1)))

    def offer(self, observations: Observations, hashes_N: NDArray[np.uint64]) -> Observations | None:
        """Take in observations of a step; those of them that are to be sent now, None = none."""
        # np.isin takes several times as long where it is but one sample, as it often is.
        known_S = self._hashes_S == hashes_N if hashes_N.size == 1 else np.isin(self._hashes_S, hashes_N)
        known = bool(known_S.any())
        self.repeated |= known or not self._sent.isdisjoint(hashes_N.tolist())
        if known:
            self._keep(~known_S | (self._place_3S[0] >= observations.step))
        wanted_N = _below(hashes_N, self._limit)
        now_N = wanted_N & _below(hashes_N, 0 if self.late else self.through + 1)
        self._hold(observations, hashes_N, np.flatnonzero(wanted_N & ~now_N))
        if len(self) > 2 * self._capacity:
            kept_S = np.unique(self._hashes_S)
            if kept_S.size > self._capacity:
                self._cut(int(kept_S[self._capacity - 1]) + 1)
        self._give_back()
        self._sent.update(hashes_N[now_N].tolist())
        return observations.select(np.flatnonzero(now_N)) if now_N.any() else None

    def cut(self, limit: int) -> None:
        """Samples with a hash at or above `limit` are of no use."""
        self._cut(limit)
        self._give_back()

    def take(self, most: int) -> list[Observations]:
        """Up to `most` observations that are asked for; they are no longer held."""
        taken_S = np.flatnonzero(_below(self._hashes_S, self.through + 1))[:most]
        _, block_T, row_T = self._place_3S[:, taken_S]
        numbers, firsts = _blocks_of(block_T)
        of_block = np.split(row_T, firsts[1:])
        taken = [
            self._blocks[number].select(rows_S) for number, rows_S in zip(numbers, of_block, strict=False)
        ]
        self._sent.update(self._hashes_S[taken_S].tolist())
        keep_S = np.ones(len(self), np.bool_)
        keep_S[taken_S] = False
        self._keep(keep_S)
        self._give_back()
        return taken

    def _cut(self, limit: int) -> None:
        self._limit = min(self._limit, limit)
        self._keep(_below(self._hashes_S, self._limit))

    def _hold(
        self, observations: Observations, hashes_N: NDArray[np.uint64], rows_N: NDArray[np.intp]
    ) -> None:
        if not rows_N.size:
            return
        block, self._blocks_made = self._blocks_made, self._blocks_made + 1
        self._set_block(block, observations.select(rows_N))
        n = rows_N.size
        place_3N = np.empty((3, n), np.int64)
        place_3N[0], place_3N[1], place_3N[2] = observations.step, block, np.arange(n)
        self._hashes_S = np.concatenate([self._hashes_S, hashes_N[rows_N]])
        self._place_3S = np.concatenate([self._place_3S, place_3N], axis=1)

    def _keep(self, keep_S: NDArray[np.bool_]) -> None:
        if keep_S.all():
            return
        self._hashes_S, self._place_3S = self._hashes_S[keep_S], self._place_3S[:, keep_S]

    def _give_back(self) -> None:
        """Let go of rows of no use, where they are many: of whole blocks, and by copying sparse ones.

        A little in every call: training waits for it.
        """
        if _SPARSE * len(self) >= self._rows:
            return
        _, block_S, row_S = self._place_3S
        numbers, firsts = _blocks_of(block_S)
        dead = self._blocks.keys() - set(numbers)
        for number in list(itertools.islice(dead, _DROPPED_AT_ONCE)):
            self._drop_block(number)
        if dead:  # copying is for when that does not do
            return
        copied = 0
        for number, first, end in zip(numbers, firsts, [*firsts[1:], len(self)], strict=True):
            if copied >= _COPIED_AT_ONCE:
                return
            block = self._blocks[number]
            if _SPARSE * (end - first) < block.samples:
                self._drop_block(number)
                self._set_block(number, block.select(row_S[first:end]))
                row_S[first:end] = np.arange(end - first)
                copied += _bytes_held(self._blocks[number])

    def _set_block(self, number: int, block: Observations) -> None:
        self._blocks[number] = block
        self._rows += block.samples
        self.nbytes += _bytes_held(block)

    def _drop_block(self, number: int) -> None:
        block = self._blocks.pop(number)
        self._rows -= block.samples
        self.nbytes -= _bytes_held(block)


def _blocks_of(block_S: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """The blocks that rows are in, and the first row in each."""
    firsts = np.flatnonzero(np.diff(block_S, prepend=-1))
    return block_S[firsts].tolist(), firsts.tolist()


def _bytes_held(block: Observations) -> int:
    """As for a message that waits: of single samples the objects take more than their numbers."""
    return block.nbytes + block.array_overhead + OVERHEAD


def _below(hashes_S: NDArray[np.uint64], limit: int) -> NDArray[np.bool_]:
    """Whether each is below a limit in 0 … 2**64, which uint64 cannot hold."""
    if limit <= 0:
        return np.zeros(hashes_S.size, np.bool_)
    return hashes_S <= np.uint64(limit - 1)
