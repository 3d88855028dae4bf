"""The commonest small message, decoded without the arrays of one element that the general way would make.

A sender that does not gather observations sends thousands of such messages a second, and each array operation
costs more than all that is in it.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.engine.checks import HALF_TOLERANCE
from pathwatch.server.engine.refusal import RefusedError
from pathwatch.server.engine.tensors import HALF, WEIGHTS, as_float32, wire_array
from pathwatch.server.sketch.admission import Admit
from pathwatch.server.sketch.observations import ObservationBlock
from pathwatch.v1 import routing_pb2, tensor_pb2

_INT32, _INT64 = struct.Struct("<i"), struct.Struct("<q")
_LOSS = {tensor_pb2.D_TYPE_FLOAT32: struct.Struct("<f"), tensor_pb2.D_TYPE_FLOAT64: struct.Struct("<d")}
_ONE = np.ones(1, np.int64)


def decode_one(
    batch: routing_pb2.ObservationBatch,
    attempt: int,
    *,
    layers: int,
    experts: int,
    float32_tolerance: float,
    admit: Admit | None,
) -> ObservationBlock | None:
    """One whole observation with mean routing weights over all its tokens, as `decode_batch` reads it.

    None = the batch is another, or something may be wrong with it: `decode_batch` tells what. Step and group
    are taken to be right.
    """
    sample_id = _number(batch.sample_ids, tensor_pb2.D_TYPE_INT64, _INT64)
    if sample_id is None or not batch.HasField("weights"):
        return None
    if (
        batch.HasField("fragment")
        or batch.HasField("target_weights")
        or batch.HasField("target_token_counts")
    ):
        return None
    counts: dict[str, NDArray[np.int32] | None] = {}
    for name, least in (("token_counts", 1), ("targets", -1), ("visits", -1)):
        counts[name] = None
        if batch.HasField(name):  # type: ignore[arg-type]
            value = _number(getattr(batch, name), tensor_pb2.D_TYPE_INT32, _INT32)
            if value is None or value < least:
                return None
            counts[name] = np.array([value], np.int32)
    losses_N = None
    if batch.HasField("losses"):
        form = _LOSS.get(batch.losses.dtype)
        loss = None if form is None else _number(batch.losses, batch.losses.dtype, form)
        if loss is None or not 0 <= loss < math.inf:
            return None
        losses_N = np.array([loss])
    tensor = batch.weights
    try:
        wire_NLK = wire_array(tensor, "", dtypes=WEIGHTS, shape=(1, layers, experts), axes="[n, L, K]")
    except RefusedError:
        return None
    weights_NLK = as_float32(wire_NLK, tensor.dtype)
    if not _sum_to_one(wire_NLK, weights_NLK, HALF_TOLERANCE if tensor.dtype in HALF else float32_tolerance):
        return None
    sample_ids_N = np.array([sample_id], np.int64)
    admission = admit(batch.group, batch.step, sample_ids_N) if admit else None
    taken = slice(None) if admission is None else slice(0, 0)
    tokens_N = _ONE if counts["token_counts"] is None else counts["token_counts"].astype(np.int64)
    targets_N, visits_N = counts["targets"], counts["visits"]
    return ObservationBlock(
        attempt=attempt,
        step=batch.step,
        group=batch.group,
        sample_ids_N=sample_ids_N[taken],
        losses_N=None if losses_N is None else losses_N[taken],
        tokens_N=tokens_N[taken],
        target_tokens_N=tokens_N[taken],
        weights_NLK=weights_NLK[taken],
        targets_N=None if targets_N is None else targets_N[taken],
        visits_N=None if visits_N is None else visits_N[taken],
        admission=admission,
    )


def _number(tensor: tensor_pb2.Tensor, dtype: int, form: struct.Struct) -> Any:
    """The only element of a tensor of shape [1]; None = it is another."""
    data, shape = tensor.data, tensor.shape
    if tensor.dtype != dtype or len(data) != form.size or len(shape) != 1 or shape[0] != 1:
        return None
    (value,) = form.unpack(data)
    return value


def _sum_to_one(wire_NLK: NDArray[np.generic], weights_NLK: NDArray[np.float32], tolerance: float) -> bool:
    """Whether all rows plainly do, and hold nothing but numbers >= 0; False where rounding might decide."""
    bits, two = (np.uint16, 0x4000) if wire_NLK.itemsize == 2 else (np.uint32, 0x4000_0000)
    # As bits, NaN and all that is negative lie above two, in each of the three types.
    if np.maximum.reduce(wire_NLK.ravel().view(bits)) > two:
        return False
    sums = np.add.reduce(weights_NLK, axis=-1).ravel().tolist()
    margin = tolerance - weights_NLK.shape[-1] * 2.0**-23
    return bool(min(sums) >= 1 - margin and max(sums) <= 1 + margin)
