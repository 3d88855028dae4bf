"""The sketch of one group's window: the `capacity` samples of smallest hash, in any state of completeness.

A pure function of the set of observations seen: bottom-k forgets a sample only when `capacity` others
of smaller hash were seen, and those never go away again; of one sample the newest step is kept; within
a step all merges are minima (token_part.py). So order, repetition and splitting leave no trace.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.metrics.window import WindowArrays
from pathwatch.server.sketch.errors import SketchError
from pathwatch.server.sketch.observations import ObservationBlock
from pathwatch.server.sketch.part_means import mean_losses, mean_weights, tokens_held
from pathwatch.server.sketch.token_part import NO_COUNT, TokenPart, resized

_FIRST_ROWS = 64
_MAX_HASH = 2**64 - 1
_NO_STEP = np.iinfo(np.int64).min


class WindowSketch:
    """Shape letters: S rows (one per sample kept), N observations of a block, L layers, K experts."""

    def __init__(self, *, layers: int, experts: int, capacity: int) -> None:
        self._layers = layers
        self._experts = experts
        self._capacity = capacity
        self._row_of: dict[int, int] = {}
        self._parts: dict[int, TokenPart] = {}
        rows = min(_FIRST_ROWS, capacity)
        self._ids_S = np.zeros(rows, np.int64)
        self._hashes_S = np.zeros(rows, np.uint64)
        self._steps_S = np.zeros(rows, np.int64)
        self._token_parts_S = np.zeros(rows, np.int64)
        self._targets_S = np.zeros(rows, np.int32)
        self._visits_S = np.zeros(rows, np.int32)
        self._target_separate_S = np.zeros(rows, np.bool_)
        self._target_unknown_S = np.zeros(rows, np.bool_)

    @property
    def hash_limit(self) -> int | None:
        """Samples with a hash at or above it change nothing any more; None while there is room."""
        if len(self._row_of) < self._capacity:
            return None
        limit = int(self._hashes_S.max()) + 1
        return limit if limit <= _MAX_HASH else None

    def add(self, block: ObservationBlock, hashes_N: NDArray[np.uint64]) -> int:
        """Take in a block; how many of its observations are among the bottom-k.

        Raises SketchError, then nothing is stored.
        """
        limit = self.hash_limit
        wanted_N = np.arange(len(hashes_N)) if limit is None else np.flatnonzero(hashes_N < np.uint64(limit))
        if not wanted_N.size:
            return 0
        self._check(block, wanted_N)
        kept = 0
        while wanted_N.size:  # more than once only if the block repeats a sample
            _, first_N = np.unique(block.sample_ids_N[wanted_N], return_index=True)
            kept += self._add_distinct(block, hashes_N, wanted_N[first_N])
            wanted_N = np.delete(wanted_N, first_N)
        return kept

    def arrays(self, *, group: str, first_step: int, step: int, ranks_missing: bool) -> WindowArrays | None:
        """The samples of which everything came, by id; None if none are. `partial` if any was left out."""
        rows_N = np.arange(len(self._row_of))
        parts = [self._parts[index] for index in sorted(self._parts)]
        single_N = self._token_parts_S[rows_N] == 1
        whole_PN = np.array([part.present_SL[rows_N].all(axis=1) for part in parts])
        tokens_N = np.sum([tokens_held(part, rows_N) for part in parts], axis=0)
        # A mean over parts that hold no token at all does not exist.
        complete_N = (whole_PN.sum(axis=0) == self._token_parts_S[rows_N]) & (single_N | (tokens_N > 0))
        rows_N = rows_N[complete_N]
        if not rows_N.size:
            return None
        rows_N = rows_N[np.argsort(self._ids_S[rows_N])]
        weights_NLK, target_weights_NLK = mean_weights(parts, rows_N, single_N[rows_N])
        targets_N, visits_N = self._targets_S[rows_N], self._visits_S[rows_N]
        return WindowArrays(
            group=group,
            first_step=first_step,
            step=step,
            sample_ids_N=self._ids_S[rows_N],
            losses_N=mean_losses(parts, rows_N, single_N[rows_N]),
            weights_NLK=weights_NLK,
            target_weights_NLK=target_weights_NLK,
            targets_N=targets_N if (targets_N >= 0).any() else None,
            visits_N=visits_N if (visits_N >= 0).any() else None,
            tokens_N=tokens_N[rows_N],
            partial=ranks_missing or not bool(complete_N.all()),
        )

    def _check(self, block: ObservationBlock, wanted_N: NDArray[np.intp]) -> None:
        """Refuse a block that contradicts what came of the same samples at the same step."""
        is_fragment = block.layers is not None or block.token_parts > 1
        if is_fragment:
            ids, counts = np.unique(block.sample_ids_N[wanted_N], return_counts=True)
            if (counts > 1).any():
                raise SketchError(
                    "batch.sample_ids",
                    "a sample occurs twice in one fragment; send each sample once per batch",
                    int(ids[counts > 1][0]),
                )
        rows_N = self._rows(block.sample_ids_N[wanted_N])
        known_N = (rows_N >= 0) & (self._steps_S[rows_N] == block.step)
        index_N, rows_N = wanted_N[known_N], rows_N[known_N]
        if not rows_N.size:
            return

        def refuse_where(wrong_N: NDArray[np.bool_], field: str, message: str) -> None:
            if wrong_N.any():
                sample_id = int(block.sample_ids_N[index_N[wrong_N.argmax()]])
                raise SketchError(
                    field,
                    f"sample {sample_id} of group {block.group!r} at step {block.step}: {message}",
                    sample_id,
                )

        refuse_where(
            self._token_parts_S[rows_N] != block.token_parts,
            "batch.fragment.token_parts",
            f"{block.token_parts} token parts here, another number in a fragment sent before; "
            "all fragments of a sample must be split alike",
        )
        if not is_fragment:
            return
        part = self._parts.get(block.token_part)
        if part is not None:
            for field, stored_S, sent_N in (
                ("batch.token_counts", part.tokens_S, block.tokens_N),
                ("batch.target_token_counts", part.target_tokens_S, block.target_tokens_N),
            ):
                stored_N = stored_S[rows_N]
                refuse_where(
                    (stored_N != NO_COUNT) & (stored_N != sent_N[index_N]),
                    field,
                    f"fragments of token part {block.token_part} disagree; "
                    "they must count the same tokens whatever layers they hold",
                )
        separate_N = np.full(len(index_N), block.target_weights_NLK is not None)
        refuse_where(
            (separate_N & self._target_unknown_S[rows_N])
            | (_target_unknown(block)[index_N] & self._target_separate_S[rows_N]),
            "batch.target_weights",
            "present in one fragment and absent in another that has other tokens beside its target tokens; "
            "send them in all fragments or in none",
        )

    def _add_distinct(
        self, block: ObservationBlock, hashes_N: NDArray[np.uint64], index_N: NDArray[np.intp]
    ) -> int:
        """Merge observations `index_N`, all of different samples; how many are among the bottom-k."""
        rows_N = self._admit(block.sample_ids_N[index_N], hashes_N[index_N])
        kept = int((rows_N >= 0).sum())
        newest_N = (rows_N >= 0) & (self._steps_S[rows_N] <= block.step)
        index_N, rows_N = index_N[newest_N], rows_N[newest_N]
        self._start(rows_N[self._steps_S[rows_N] < block.step], block)
        part = self._parts.get(block.token_part)
        if part is None:
            part = TokenPart(rows=len(self._ids_S), layers=self._layers, experts=self._experts)
            self._parts[block.token_part] = part
        part.merge(rows_N, block, index_N)
        for stored_S, sent_N in ((self._targets_S, block.targets_N), (self._visits_S, block.visits_N)):
            if sent_N is not None:
                # As unsigned numbers −1, nothing known, is the largest.
                stored_S[rows_N] = np.minimum(
                    stored_S[rows_N].view(np.uint32), sent_N[index_N].view(np.uint32)
                ).view(np.int32)
        self._target_separate_S[rows_N] |= block.target_weights_NLK is not None
        self._target_unknown_S[rows_N] |= _target_unknown(block)[index_N]
        return kept

    def _admit(self, sample_ids_N: NDArray[np.int64], hashes_N: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Row of each of these different samples, new for those that enter the bottom-k; −1 = they do not."""
        rows_N = self._rows(sample_ids_N)
        new_N = np.flatnonzero(rows_N < 0)
        held = len(self._row_of)
        freed: NDArray[np.intp] = np.zeros(0, np.intp)
        if held + new_N.size > self._capacity:
            hashes = np.concatenate([self._hashes_S[:held], hashes_N[new_N]])
            largest_kept = np.partition(hashes, self._capacity - 1)[self._capacity - 1]
            new_N = new_N[hashes_N[new_N] <= largest_kept]
            freed = np.flatnonzero(self._hashes_S[:held] > largest_kept)
            for sample_id in self._ids_S[freed].tolist():
                del self._row_of[sample_id]
            rows_N[np.isin(rows_N, freed)] = -1
        size = held + new_N.size - freed.size
        if size > len(self._ids_S):
            self._resize(min(self._capacity, max(size, 2 * len(self._ids_S))))
        rows = np.concatenate([freed, np.arange(held, size)])
        rows_N[new_N] = rows
        self._ids_S[rows] = sample_ids_N[new_N]
        self._hashes_S[rows] = hashes_N[new_N]
        self._steps_S[rows] = _NO_STEP
        self._row_of.update(zip(sample_ids_N[new_N].tolist(), rows.tolist(), strict=True))
        return rows_N

    def _start(self, rows_N: NDArray[np.intp], block: ObservationBlock) -> None:
        """Begin samples afresh at the step of the block: new ones, and those seen at an earlier step."""
        self._steps_S[rows_N] = block.step
        self._token_parts_S[rows_N] = block.token_parts
        self._targets_S[rows_N] = -1
        self._visits_S[rows_N] = -1
        self._target_separate_S[rows_N] = False
        self._target_unknown_S[rows_N] = False
        for part in self._parts.values():
            part.clear(rows_N)

    def _resize(self, rows: int) -> None:
        self._ids_S = resized(self._ids_S, rows, 0)
        self._hashes_S = resized(self._hashes_S, rows, 0)
        self._steps_S = resized(self._steps_S, rows, 0)
        self._token_parts_S = resized(self._token_parts_S, rows, 0)
        self._targets_S = resized(self._targets_S, rows, 0)
        self._visits_S = resized(self._visits_S, rows, 0)
        self._target_separate_S = resized(self._target_separate_S, rows, False)
        self._target_unknown_S = resized(self._target_unknown_S, rows, False)
        for part in self._parts.values():
            part.resize(rows)

    def _rows(self, sample_ids_N: NDArray[np.int64]) -> NDArray[np.intp]:
        """Row of each sample, −1 = none."""
        row_of = self._row_of
        return np.array([row_of.get(sample_id, -1) for sample_id in sample_ids_N.tolist()], np.intp)


def _target_unknown(block: ObservationBlock) -> NDArray[np.bool_]:
    """[N] whether the weights over target tokens differ from those over all tokens but did not come."""
    if block.target_weights_NLK is not None:
        return np.zeros(len(block.tokens_N), np.bool_)
    unknown_N: NDArray[np.bool_] = (block.target_tokens_N != 0) & (block.target_tokens_N != block.tokens_N)
    return unknown_N
