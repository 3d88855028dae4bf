"""Arrays of routing weights: names whose precision does not matter to a reader, and walks in small copies."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
Ints: TypeAlias = NDArray[np.integer[Any]]

BLOCK_BYTES = 4 << 20
"""What is worked on at a time: stays in cache, and a window never stands in float64 as a whole."""


def layer_blocks(weights_NLK: Floats, nbytes: int = BLOCK_BYTES) -> Iterator[NDArray[np.float64]]:
    """The layers in order, some at a time: float64 copies [N, l·K], l the layers of a block."""
    for some_NLK in layer_views(weights_NLK, nbytes):
        yield some_NLK.astype(np.float64).reshape(len(weights_NLK), -1)


def layer_views(weights_NLK: Floats, nbytes: int) -> Iterator[Floats]:
    """The layers in order, some at a time: as many as take `nbytes` in float64, at least one."""
    n, layers, experts = weights_NLK.shape
    taken = max(1, nbytes // max(1, n * experts * 8))
    for first in range(0, layers, taken):
        yield weights_NLK[:, first : first + taken]


def sample_blocks(weights_NLK: Floats) -> Iterator[Floats]:
    """The samples in order, some at a time: views [n, L, K]."""
    taken = max(1, BLOCK_BYTES // max(1, weights_NLK[0].size * 8))
    for first in range(0, len(weights_NLK), taken):
        yield weights_NLK[first : first + taken]
