"""What came of one token part of the samples of a window: one row per sample, merged order-free.

Every field merges by a minimum, which forgets order and repetition: where two reports of the same
thing differ, the smaller one stands, whichever came first.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.sketch.observations import ObservationBlock

T = TypeVar("T", bound=np.generic)

NO_COUNT = np.iinfo(np.int64).max
"""Token count of a sample of which nothing has come: the neutral element of the minimum."""


class TokenPart:
    """Shape letters: S rows (samples), N observations of a block, L layers, K experts."""

    def __init__(self, *, rows: int, layers: int, experts: int) -> None:
        self.weights_SLK = np.zeros((rows, layers, experts), np.float32)
        self.present_SL = np.zeros((rows, layers), np.bool_)
        self.target_weights_SLK: NDArray[np.float32] | None = None
        self.target_present_SL = np.zeros((rows, layers), np.bool_)
        self.tokens_S = np.full(rows, NO_COUNT, np.int64)
        self.target_tokens_S = np.full(rows, NO_COUNT, np.int64)
        self.losses_S = np.full(rows, np.nan)
        self.targets_S = np.full(rows, -1, np.int32)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        rows, layers, experts = self.weights_SLK.shape
        return rows * part_row_bytes(layers, experts, targets=self.target_weights_SLK is not None)

    def resize(self, rows: int) -> None:
        """Make room for `rows` samples; new rows are empty."""
        self.weights_SLK = resized(self.weights_SLK, rows, 0)
        self.present_SL = resized(self.present_SL, rows, False)
        if self.target_weights_SLK is not None:
            self.target_weights_SLK = resized(self.target_weights_SLK, rows, 0)
        self.target_present_SL = resized(self.target_present_SL, rows, False)
        self.tokens_S = resized(self.tokens_S, rows, NO_COUNT)
        self.target_tokens_S = resized(self.target_tokens_S, rows, NO_COUNT)
        self.losses_S = resized(self.losses_S, rows, np.nan)
        self.targets_S = resized(self.targets_S, rows, -1)

    def clear(self, rows_N: NDArray[np.intp]) -> None:
        """Forget all about these rows."""
        self.present_SL[rows_N] = False
        self.target_present_SL[rows_N] = False
        self.tokens_S[rows_N] = NO_COUNT
        self.target_tokens_S[rows_N] = NO_COUNT
        self.losses_S[rows_N] = np.nan
        self.targets_S[rows_N] = -1

    def merge(self, rows_N: NDArray[np.intp], block: ObservationBlock, index_N: NDArray[np.intp]) -> None:
        """Merge observations `index_N` of a block into rows `rows_N` (all different)."""
        layers = None if block.layers is None else np.array(block.layers, np.intp)
        _merge_cells(self.weights_SLK, self.present_SL, rows_N, layers, block.weights_NLK[index_N])
        if block.target_weights_NLK is not None:
            if self.target_weights_SLK is None:
                self.target_weights_SLK = np.zeros_like(self.weights_SLK)
            _merge_cells(
                self.target_weights_SLK,
                self.target_present_SL,
                rows_N,
                layers,
                block.target_weights_NLK[index_N],
            )
        self.tokens_S[rows_N] = np.minimum(self.tokens_S[rows_N], block.tokens_N[index_N])
        self.target_tokens_S[rows_N] = np.minimum(
            self.target_tokens_S[rows_N], block.target_tokens_N[index_N]
        )
        if block.losses_N is not None:
            # + 0.0: of −0.0 and 0.0 fmin would keep the one that came first.
            self.losses_S[rows_N] = np.fmin(self.losses_S[rows_N], block.losses_N[index_N] + 0.0)
        if block.targets_N is not None:
            self.targets_S[rows_N] = smaller_known(self.targets_S[rows_N], block.targets_N[index_N])

    def put_whole(self, row: int, block: ObservationBlock) -> None:
        """`clear` one row and `merge` into it the only observation of a block of all layers, which brings no
        target weights: what is merged into nothing is put there as it is.
        """
        self.weights_SLK[row] = block.weights_NLK[0]
        self.present_SL[row] = True
        self.target_present_SL[row] = False
        self.tokens_S[row] = block.tokens_N[0]
        self.target_tokens_S[row] = block.target_tokens_N[0]
        self.losses_S[row] = np.nan if block.losses_N is None else block.losses_N[0] + 0.0
        self.targets_S[row] = -1 if block.targets_N is None else block.targets_N[0]

    def effective_target_weights(self, rows_N: NDArray[np.intp]) -> NDArray[np.float32]:
        """[N, L, K] target weights; the weights themselves where no others came (the two are the same)."""
        weights_NLK = self.weights_SLK[rows_N]
        if self.target_weights_SLK is None:
            return weights_NLK
        return np.where(
            self.target_present_SL[rows_N][:, :, None], self.target_weights_SLK[rows_N], weights_NLK
        )


def part_row_bytes(layers: int, experts: int, *, targets: bool) -> int:
    """Bytes that one sample takes in a part: weights, twice with `targets`, flags, counts, loss, target."""
    weights = layers * experts * np.dtype(np.float32).itemsize
    return (2 if targets else 1) * weights + 2 * layers + 8 + 8 + 8 + 4


def smaller_known(a_N: NDArray[np.int32], b_N: NDArray[np.int32]) -> NDArray[np.int32]:
    """The smaller of two numbers >= 0, each of which may be −1, not known."""
    # As unsigned numbers −1 is the largest.
    return np.minimum(a_N.view(np.uint32), b_N.view(np.uint32)).view(np.int32)


def resized(array: NDArray[T], rows: int, fill: float | bool) -> NDArray[T]:
    """A longer copy of `array` along its first axis, new rows holding `fill`."""
    longer = np.zeros((rows, *array.shape[1:]), array.dtype)  # zeros: pages not yet used cost nothing
    longer[: len(array)] = array
    if fill:
        longer[len(array) :] = fill
    return longer


def _merge_cells(
    stored_SLK: NDArray[np.float32],
    present_SL: NDArray[np.bool_],
    rows_N: NDArray[np.intp],
    layers: NDArray[np.intp] | None,
    incoming_NLK: NDArray[np.float32],
) -> None:
    """Write [K] weights per sample and layer; where some were before, the lexicographically smaller stand."""
    # Whole rows are copied as such, several times as fast.
    where = rows_N if layers is None else np.ix_(rows_N, layers)
    taken_NL = present_SL[where]
    if taken_NL.any():
        current_NLK = stored_SLK[where]
        keep_NL = taken_NL & ~_bits_below(incoming_NLK, current_NLK)
        incoming_NLK = np.where(keep_NL[:, :, None], current_NLK, incoming_NLK)
    stored_SLK[where] = incoming_NLK
    present_SL[where] = True


def _bits_below(a_NLK: NDArray[np.float32], b_NLK: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[N, L] whether the weights of `a` come before those of `b`, by their bits: a total order."""
    a_bits, b_bits = (np.ascontiguousarray(x, np.float32).view(np.uint32) for x in (a_NLK, b_NLK))
    first_NL1 = (a_bits != b_bits).argmax(axis=-1, keepdims=True)
    below: NDArray[np.bool_] = (
        np.take_along_axis(a_bits, first_NL1, -1) < np.take_along_axis(b_bits, first_NL1, -1)
    )[:, :, 0]
    return below
