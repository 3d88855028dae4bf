"""The sketch of one group's window: the `capacity` samples of smallest hash, in any state of completeness.

A pure function of the set of observations seen: the samples are a bottom-k (bottom_k.py), of one sample
the newest step is kept, and within a step all merges are minima (token_part.py). So order, repetition
and splitting leave no trace.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.metrics.window import WindowArrays
from pathwatch.server.sketch.agreement import check_agreement, target_weights_missing
from pathwatch.server.sketch.bottom_k import BottomK
from pathwatch.server.sketch.observations import ObservationBlock
from pathwatch.server.sketch.part_means import (
    mean_losses,
    mean_weights,
    shared_targets,
    target_tokens_held,
    tokens_held,
)
from pathwatch.server.sketch.token_part import TokenPart, part_row_bytes, resized, smaller_known

SAMPLE_FIELDS = np.dtype(
    [
        ("step", np.int64),
        ("token_parts", np.int64),
        ("visits", np.int32),
        # Whether target weights came, and whether some did not though they would differ.
        ("target_weights_came", np.bool_),
        ("target_weights_missing", np.bool_),
    ]
)
_FIRST_ROWS = 64
_NO_STEP = np.iinfo(np.int64).min


class WindowSketch:
    """Shape letters: S rows (one per sample kept), N observations of a block, L layers, K experts."""

    def __init__(self, *, layers: int, experts: int, capacity: int) -> None:
        self._layers = layers
        self._experts = experts
        self._capacity = capacity
        self._kept = BottomK(capacity)
        self._samples_S = np.zeros(min(_FIRST_ROWS, capacity), SAMPLE_FIELDS)
        self._parts: dict[int, TokenPart] = {}
        self.state: object = object()
        """Another object after each change: one that is the same stands for the same content."""

    @property
    def hash_limit(self) -> int | None:
        """Samples with a hash at or above it change nothing any more; None while there is room."""
        return self._kept.hash_limit

    @property
    def size(self) -> int:
        """Samples kept so far."""
        return self._kept.size

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays, room for samples to come included."""
        return self._samples_S.nbytes + sum(part.nbytes for part in self._parts.values())

    def nbytes_with(self, block: ObservationBlock) -> int:
        """At most how many bytes it takes once `block` is added."""
        rows = self._rows_for(min(self._capacity, self._kept.size + len(block.sample_ids_N)))
        targets = {index: part.target_weights_SLK is not None for index, part in self._parts.items()}
        comes = block.target_weights_NLK is not None
        targets[block.token_part] = comes or targets.get(block.token_part, False)
        row_bytes = sum(
            part_row_bytes(self._layers, self._experts, targets=has_targets)
            for has_targets in targets.values()
        )
        return rows * (SAMPLE_FIELDS.itemsize + row_bytes)

    def growth(self, block: ObservationBlock) -> int:
        """At most how many bytes more it takes once `block` is added."""
        part = self._parts.get(block.token_part)
        samples = min(self._capacity, self._kept.size + len(block.sample_ids_N))
        is_new_kind = block.target_weights_NLK is not None and (
            part is None or part.target_weights_SLK is None
        )
        if part is not None and samples <= self._samples_S.size and not is_new_kind:
            return 0
        return self.nbytes_with(block) - self.nbytes

    def check(self, block: ObservationBlock, hashes_N: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Observations of a block that may be among the bottom-k. Raises SketchError where `add` would."""
        limit = self.hash_limit
        wanted_N = np.arange(len(hashes_N)) if limit is None else np.flatnonzero(hashes_N < np.uint64(limit))
        if wanted_N.size:
            rows_N = self._kept.rows(block.sample_ids_N[wanted_N])
            check_agreement(block, wanted_N, rows_N, self._samples_S, self._parts)
        return wanted_N

    def add(self, block: ObservationBlock, hashes_N: NDArray[np.uint64]) -> int:
        """Take in a block; how many of its observations are among the bottom-k.

        Raises SketchError, then nothing is stored.
        """
        if len(block.sample_ids_N) == 1 and (kept := self._add_one(block, int(hashes_N[0]))) is not None:
            return kept
        wanted_N = self.check(block, hashes_N)
        kept = 0
        while wanted_N.size:  # more than once only if the block repeats a sample
            _, first_N = np.unique(block.sample_ids_N[wanted_N], return_index=True)
            kept += self._add_distinct(block, hashes_N, wanted_N[first_N])
            if first_N.size == wanted_N.size:
                break
            wanted_N = np.delete(wanted_N, first_N)
        return kept

    def arrays(self, *, group: str, first_step: int, step: int, ranks_missing: bool) -> WindowArrays | None:
        """The samples of which everything came, by id; None if none are. `partial` if any is incomplete."""
        rows_N, is_complete = self._whole_rows()
        if not rows_N.size:
            return None
        rows_N = rows_N[np.argsort(self._kept.ids_S[rows_N])]
        parts = self._parts_in_order()
        samples_S = self._samples_S[: self._kept.size]
        single_S = samples_S["token_parts"] == 1
        tokens_S = np.sum([tokens_held(part, np.arange(samples_S.size)) for part in parts], axis=0)
        weights_NLK, target_weights_NLK = mean_weights(parts, rows_N, single_S[rows_N])
        targets_N = shared_targets(parts, rows_N, single_S[rows_N])
        visits_N = samples_S["visits"][rows_N]
        return WindowArrays(
            group=group,
            first_step=first_step,
            step=step,
            sample_ids_N=self._kept.ids_S[rows_N],
            losses_N=mean_losses(parts, rows_N, single_S[rows_N]),
            weights_NLK=weights_NLK,
            target_weights_NLK=target_weights_NLK,
            targets_N=targets_N if (targets_N >= 0).any() else None,
            visits_N=visits_N if (visits_N >= 0).any() else None,
            tokens_N=tokens_S[rows_N],
            partial=ranks_missing or not is_complete,
        )

    def completeness(self) -> tuple[int, bool]:
        """How many samples `arrays` would hold, and whether of all that are kept everything came."""
        rows_N, is_complete = self._whole_rows()
        return rows_N.size, is_complete

    def _whole_rows(self) -> tuple[NDArray[np.intp], bool]:
        """Rows of the samples of which everything came, and whether that is all of them.

        A sample in parts none of which has a target token says nothing and is left out; whoever sees it whole
        does not send it.
        """
        samples_S = self._samples_S[: self._kept.size]
        all_S = np.arange(samples_S.size)
        parts = self._parts_in_order()
        whole_parts_S = np.sum([part.present_SL[all_S].all(axis=1) for part in parts], axis=0)
        target_tokens_S = np.sum([target_tokens_held(part, all_S) for part in parts], axis=0)
        complete_S = whole_parts_S == samples_S["token_parts"]
        said_S = (samples_S["token_parts"] == 1) | (target_tokens_S > 0)
        return np.flatnonzero(complete_S & said_S), bool(complete_S.all())

    def _parts_in_order(self) -> list[TokenPart]:
        return [self._parts[index] for index in sorted(self._parts)]

    def _add_one(self, block: ObservationBlock, hash_: int) -> int | None:
        """`add` of a whole observation of a sample that is new, or newer than what is known of it.

        None = it is another case, and nothing was done. Most messages of a sender that does not gather
        observations are of this kind; as arrays of one element they would take ten times as long.
        """
        part = self._parts.get(0)
        is_whole = block.layers is None and block.token_parts == 1 and block.target_weights_NLK is None
        if not is_whole or part is None or len(self._parts) > 1:
            return None
        limit = self.hash_limit
        if limit is not None and hash_ >= limit:
            return 0
        sample_id = int(block.sample_ids_N[0])
        row = self._kept.row(sample_id)
        if row is None:
            if self._kept.size == self._samples_S.size < self._capacity:
                return None  # room is to be made
            row = self._kept.admit_one(sample_id, hash_)
            if row is None:
                return 0
        elif self._samples_S["step"][row] >= block.step:
            return None
        self.state = object()
        part.put_whole(row, block)
        visits = -1 if block.visits_N is None else block.visits_N[0]
        tokens, target_tokens = block.tokens_N[0], block.target_tokens_N[0]
        missing = target_tokens != 0 and target_tokens != tokens
        self._samples_S[row] = (block.step, 1, visits, False, missing)
        return 1

    def _add_distinct(
        self, block: ObservationBlock, hashes_N: NDArray[np.uint64], index_N: NDArray[np.intp]
    ) -> int:
        """Merge observations `index_N`, all of different samples; how many are among the bottom-k."""
        self.state = object()
        rows_N, changed = self._kept.admit(block.sample_ids_N[index_N], hashes_N[index_N])
        self._make_room()
        self._samples_S["step"][changed] = _NO_STEP
        kept = int((rows_N >= 0).sum())
        newest_N = (rows_N >= 0) & (self._samples_S["step"][rows_N] <= block.step)
        index_N, rows_N = index_N[newest_N], rows_N[newest_N]
        if not rows_N.size:
            return kept
        self._start(rows_N[self._samples_S["step"][rows_N] < block.step], block)
        part = self._parts.get(block.token_part)
        if part is None:
            part = TokenPart(rows=self._samples_S.size, layers=self._layers, experts=self._experts)
            self._parts[block.token_part] = part
        part.merge(rows_N, block, index_N)
        if block.visits_N is not None:
            self._samples_S["visits"][rows_N] = smaller_known(
                self._samples_S["visits"][rows_N], block.visits_N[index_N]
            )
        self._samples_S["target_weights_came"][rows_N] |= block.target_weights_NLK is not None
        self._samples_S["target_weights_missing"][rows_N] |= target_weights_missing(block)[index_N]
        return kept

    def _start(self, rows_N: NDArray[np.intp], block: ObservationBlock) -> None:
        """Begin samples afresh at the step of the block: new ones, and those seen at an earlier step."""
        self._samples_S[rows_N] = (block.step, block.token_parts, -1, False, False)
        for part in self._parts.values():
            part.clear(rows_N)

    def _make_room(self) -> None:
        """Grow by doubling, so that a small probe set does not pay for the whole capacity."""
        rows = self._rows_for(self._kept.size)
        if rows > self._samples_S.size:
            self._samples_S = resized(self._samples_S, rows, 0)
            for part in self._parts.values():
                part.resize(rows)

    def _rows_for(self, samples: int) -> int:
        """Rows there will be once there are so many samples."""
        rows = self._samples_S.size
        return rows if samples <= rows else min(self._capacity, max(samples, 2 * rows))
