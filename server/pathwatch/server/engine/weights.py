"""Routing weights of a batch: all of them checked, those wanted as float32."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.engine.checks import check_distributions
from pathwatch.server.engine.tensors import WEIGHTS, as_float32, wire_array
from pathwatch.v1 import tensor_pb2


def read_weights(
    tensor: tensor_pb2.Tensor,
    field: str,
    sample_ids_N: NDArray[np.int64],
    *,
    layers: int,
    experts: int,
    empty_N: NDArray[np.bool_],
    wanted_N: NDArray[np.intp] | None,
    float32_tolerance: float,
) -> NDArray[np.float32]:
    """Weights [n', L, K] of the samples `wanted_N` (None = all). Raises RefusedError, whoever is at fault.

    Rows of `empty_N` stand for no token at all: whatever they hold, they become zeros.
    """
    wire_NLK = wire_array(
        tensor, field, dtypes=WEIGHTS, shape=[len(sample_ids_N), layers, experts], axes="[n, L, K]"
    )
    has_empty = bool(empty_N.any())
    held_N = ~empty_N if has_empty else slice(None)
    check_distributions(
        field, wire_NLK[held_N], tensor.dtype, sample_ids_N[held_N], float32_tolerance=float32_tolerance
    )
    weights_NLK = as_float32(wire_NLK if wanted_N is None else wire_NLK[wanted_N], tensor.dtype)
    if has_empty:
        weights_NLK = np.where(
            (empty_N if wanted_N is None else empty_N[wanted_N])[:, None, None], np.float32(0), weights_NLK
        )
    return weights_NLK
