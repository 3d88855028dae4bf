"""What is stored of a batch until its window is judged: as it came, or what the window wants of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.engine.tensors import to_tensor
from pathwatch.server.sketch.observations import ObservationBlock
from pathwatch.v1 import routing_pb2, tensor_pb2

_PER_SAMPLE = ("sample_ids", "losses", "token_counts", "target_token_counts", "targets", "visits")
_WEIGHTS = ("weights", "target_weights")


def stored_batch(batch: routing_pb2.ObservationBatch, block: ObservationBlock) -> bytes:
    """A serialized ObservationBatch that is read as `block`, to the bit; empty where nothing is wanted.

    `block` is what `batch` was read as. Raw scores become the weights that they were reduced to.
    """
    if not len(block.sample_ids_N):
        return b""
    wanted_N = None if block.admission is None else block.admission.wanted_N
    is_raw = batch.HasField("raw")
    if wanted_N is None and not is_raw:
        return batch.SerializeToString()
    stored = routing_pb2.ObservationBatch(step=batch.step, group=batch.group)
    if batch.HasField("fragment"):
        stored.fragment.CopyFrom(batch.fragment)
    for name in _PER_SAMPLE if is_raw else _PER_SAMPLE + _WEIGHTS:
        if batch.HasField(name):  # type: ignore[arg-type]
            getattr(stored, name).CopyFrom(_rows(getattr(batch, name), wanted_N))
    if is_raw:
        stored.weights.CopyFrom(to_tensor(block.weights_NLK))
        stored.token_counts.CopyFrom(to_tensor(block.tokens_N.astype(np.int32)))
        stored.target_token_counts.CopyFrom(to_tensor(block.target_tokens_N.astype(np.int32)))
        if block.target_weights_NLK is not None:
            stored.target_weights.CopyFrom(to_tensor(block.target_weights_NLK))
    return stored.SerializeToString()


def _rows(tensor: tensor_pb2.Tensor, wanted_N: NDArray[np.intp] | None) -> tensor_pb2.Tensor:
    """The entries `wanted_N` of the first axis; None = all."""
    if wanted_N is None:
        return tensor
    bytes_NB = np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape[0], -1)
    return tensor_pb2.Tensor(
        dtype=tensor.dtype,
        shape=[len(wanted_N), *tensor.shape[1:]],
        data=bytes_NB[wanted_N].tobytes(),
    )
