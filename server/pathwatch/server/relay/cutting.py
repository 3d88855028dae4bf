"""A batch without some of its observations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pathwatch.v1 import routing_pb2, tensor_pb2

_PER_SAMPLE = (
    *("sample_ids", "losses", "token_counts", "target_token_counts"),
    *("weights", "target_weights", "targets", "visits"),
)


def cut(batch: routing_pb2.ObservationBatch, kept_N: NDArray[np.intp]) -> routing_pb2.ObservationBatch:
    """The observations at these places, ascending, byte for byte as they came.

    The batch must be one that servers take: what is wrong with it would be cut off, too.
    """
    kept = routing_pb2.ObservationBatch(step=batch.step, group=batch.group)
    for name in _PER_SAMPLE:
        if batch.HasField(name):  # type: ignore[arg-type]
            _copy(getattr(batch, name), kept_N, getattr(kept, name))
    if batch.HasField("raw"):
        lengths_N = np.frombuffer(batch.raw.lengths.data, "<i4")
        is_kept_N = np.zeros(len(lengths_N), np.bool_)
        is_kept_N[kept_N] = True
        tokens_T = np.flatnonzero(np.repeat(is_kept_N, lengths_N))
        kept.raw.kind = batch.raw.kind
        _copy(batch.raw.lengths, kept_N, kept.raw.lengths)
        _copy(batch.raw.scores, tokens_T, kept.raw.scores)
        if batch.raw.HasField("target_mask"):
            _copy(batch.raw.target_mask, tokens_T, kept.raw.target_mask)
    if batch.HasField("fragment"):
        kept.fragment.CopyFrom(batch.fragment)
    return kept


def _copy(tensor: tensor_pb2.Tensor, rows: NDArray[np.intp], into: tensor_pb2.Tensor) -> None:
    """Rows along the first axis."""
    data = tensor.data
    size = tensor.shape[0]
    bytes_NB = np.frombuffer(data, np.uint8).reshape(size, len(data) // size)
    into.dtype = tensor.dtype
    into.shape.extend((len(rows), *tensor.shape[1:]))
    into.data = bytes_NB[rows].tobytes()
