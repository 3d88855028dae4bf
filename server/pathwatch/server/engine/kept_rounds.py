"""Rounds as the store keeps them for analysis: a compressed pathwatch.v1.RoundObservations."""

from __future__ import annotations

import logging
import zlib

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.engine.tensors import to_tensor
from pathwatch.server.metrics.window import Geometry, WindowArrays
from pathwatch.server.sketch.run_sketch import Round
from pathwatch.v1 import routing_pb2, signal_pb2

log = logging.getLogger("pathwatch.server")

MAX_ROUND_BYTES = 900_000_000
"""Largest round that is kept: SQLite takes values of up to 10⁹ bytes, protobuf messages of up to 2³¹."""
_LEVEL = 1
"""Mean routing weights are nearly incompressible: higher levels of zlib save less than 1 % more."""


def pack_round(round_: Round, geometry: Geometry | None) -> bytes:
    """The round with the geometry it was judged by; no bytes, and an error in the log, where it is too large.

    Weights become float16 where that changes no value.
    """
    message = signal_pb2.RoundObservations(
        attempt=round_.attempt, first_step=round_.first_step, step=round_.step
    )
    size = 0
    for window in round_.windows.values():
        kept = _observations(window)
        size += kept.ByteSize()
        if size > MAX_ROUND_BYTES:
            log.error(
                "the round at step %d holds more than %d bytes and is not kept; lower the run's capacity",
                round_.step,
                MAX_ROUND_BYTES,
            )
            return b""
        message.groups.append(kept)
    if geometry is not None:
        message.geometry.CopyFrom(
            routing_pb2.ExpertGeometry(
                step=geometry.step,
                gram_self=to_tensor(geometry.gram_self_LKK),
                gram_next=to_tensor(geometry.gram_next_LKK),
            )
        )
    return zlib.compress(message.SerializeToString(), _LEVEL)


def unpack_round(data: bytes) -> signal_pb2.RoundObservations:
    """The round that `pack_round` was given."""
    return signal_pb2.RoundObservations.FromString(zlib.decompress(data))


def _observations(window: WindowArrays) -> signal_pb2.GroupObservations:
    message = signal_pb2.GroupObservations(
        group=window.group,
        partial=window.partial,
        sample_ids=to_tensor(window.sample_ids_N),
        losses=to_tensor(_narrowed(window.losses_N, np.float32)),
        weights=to_tensor(_narrowed(window.weights_NLK, np.float16)),
        token_counts=to_tensor(window.tokens_N),
    )
    if window.target_weights_NLK is not None:
        message.target_weights.CopyFrom(to_tensor(_narrowed(window.target_weights_NLK, np.float16)))
    if window.targets_N is not None:
        message.targets.CopyFrom(to_tensor(window.targets_N))
    if window.visits_N is not None:
        message.visits.CopyFrom(to_tensor(window.visits_N))
    return message


def _narrowed(values: NDArray[np.floating], dtype: type[np.floating]) -> NDArray[np.floating]:
    """The values in a smaller type if it holds every one of them exactly."""
    with np.errstate(over="ignore"):
        narrow = values.astype(dtype)
    return narrow if np.array_equal(narrow, values, equal_nan=True) else values
