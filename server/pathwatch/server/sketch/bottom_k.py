"""Bottom-k: the `capacity` samples of smallest hash among all that were ever offered, each with a row.

Order-free: a sample goes only when `capacity` others of smaller hash were seen, and those only make
way for smaller ones still.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MAX_HASH = 2**64 - 1


class BottomK:
    """Rows are 0 … size − 1 without holes; a sample keeps its row until it is pushed out."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._row_of: dict[int, int] = {}
        self.ids_S = np.zeros(0, np.int64)
        """Sample in each row."""
        self.hash_limit: int | None = None
        """Samples with a hash at or above it will not be admitted any more; None while there is room. It only
        falls, so that what another thread reads is at most too high."""
        self._hashes_S = np.zeros(0, np.uint64)

    @property
    def size(self) -> int:
        """Samples held."""
        return len(self._row_of)

    def rows(self, sample_ids_N: NDArray[np.int64]) -> NDArray[np.intp]:
        """Row of each sample, −1 = none."""
        row_of = self._row_of
        return np.array([row_of.get(sample_id, -1) for sample_id in sample_ids_N.tolist()], np.intp)

    def admit(
        self, sample_ids_N: NDArray[np.int64], hashes_N: NDArray[np.uint64]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Offer different samples: row of each (−1 = not among the smallest), and all rows given anew."""
        rows_N = self.rows(sample_ids_N)
        new_N = np.flatnonzero(rows_N < 0)
        held = self.size
        freed = np.zeros(0, np.intp)
        if held + new_N.size > self._capacity:
            hashes = np.concatenate([self._hashes_S, hashes_N[new_N]])
            largest_kept = np.partition(hashes, self._capacity - 1)[self._capacity - 1]
            new_N = new_N[hashes_N[new_N] <= largest_kept]
            freed = np.flatnonzero(self._hashes_S > largest_kept)
            for sample_id in self.ids_S[freed].tolist():
                del self._row_of[sample_id]
            is_freed_S = np.zeros(held, np.bool_)
            is_freed_S[freed] = True
            known_N = np.flatnonzero(rows_N >= 0)
            rows_N[known_N[is_freed_S[rows_N[known_N]]]] = -1
        # As many leave as room is short of, so the freed rows are all taken again.
        changed = freed
        if added := new_N.size - freed.size:
            self.ids_S = np.concatenate([self.ids_S, np.zeros(added, np.int64)])
            self._hashes_S = np.concatenate([self._hashes_S, np.zeros(added, np.uint64)])
            changed = np.concatenate([freed, np.arange(held, held + added)])
        rows_N[new_N] = changed
        self.ids_S[changed] = sample_ids_N[new_N]
        self._hashes_S[changed] = hashes_N[new_N]
        self._row_of.update(zip(sample_ids_N[new_N].tolist(), changed.tolist(), strict=True))
        if changed.size:
            self._set_limit()
        return rows_N, changed

    def row(self, sample_id: int) -> int | None:
        """Row of one sample, None = none."""
        return self._row_of.get(sample_id)

    def admit_one(self, sample_id: int, hash_: int) -> int | None:
        """As `admit` for one sample that has no row; None = not among the smallest."""
        row = self.size
        if row < self._capacity:
            self.ids_S = np.append(self.ids_S, np.int64(sample_id))
            self._hashes_S = np.append(self._hashes_S, np.uint64(hash_))
        else:
            row = int(self._hashes_S.argmax())
            if hash_ > int(self._hashes_S[row]):
                return None
            del self._row_of[int(self.ids_S[row])]
            self.ids_S[row] = sample_id
            self._hashes_S[row] = hash_
        self._row_of[sample_id] = row
        self._set_limit()
        return row

    def _set_limit(self) -> None:
        if self.size == self._capacity:
            limit = int(self._hashes_S.max()) + 1
            self.hash_limit = limit if limit <= _MAX_HASH else None
