"""Arrays of routing weights: names whose precision does not matter to a reader, and walks in small copies."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
Ints: TypeAlias = NDArray[np.integer[Any]]

BLOCK_BYTES = 4 << 20
"""What is worked on at a time: stays in cache, and a window never stands in float64 as a whole."""
LARGE_MODEL = 8192
"""Layers times experts above which closing a round takes too long in float64; OLMoE has 1024, DeepSeek-V3
14848. It is the model that decides, not the window: a run is measured with one precision."""


def precision(weights_NLK: Floats) -> np.dtype[np.floating[Any]]:
    """What weights are multiplied and their logarithms taken in (docs/metrics.md, "How exact it is")."""
    large = weights_NLK.shape[1] * weights_NLK.shape[2] > LARGE_MODEL
    return np.result_type(weights_NLK.dtype, np.float32 if large else np.float64)


def layer_blocks(weights_NLK: Floats) -> Iterator[Floats]:
    """The layers in order, some at a time: copies [N, l·K] in the model's precision, l layers each."""
    for some_NLK in layer_views(weights_NLK, BLOCK_BYTES):
        yield some_NLK.astype(precision(weights_NLK)).reshape(len(weights_NLK), -1)


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
