"""A batch of one observation is read as it would be beside others, and refused in the same words."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.client.tensors import to_tensor
from pathwatch.server.config import Limits
from pathwatch.server.engine.decode import Topology, decode_batch
from pathwatch.server.engine.refusal import RefusedError
from pathwatch.server.sketch.admission import admission
from pathwatch.v1 import routing_pb2, tensor_pb2

SHAPE = Topology(layers=3, experts=5, limits=Limits())
OPTIONAL = {"token_counts": (1, 9), "targets": (-1, 9), "visits": (-1, 9)}


def weights_tensor(weights: Any, dtype: str) -> tensor_pb2.Tensor:
    if dtype != "bfloat16":
        return to_tensor(weights.astype(dtype))
    bits = (weights.astype(np.float32).view(np.uint32) + 0x8000 >> 16).astype(np.uint16)
    return tensor_pb2.Tensor(dtype=tensor_pb2.D_TYPE_BFLOAT16, shape=bits.shape, data=bits.tobytes())


def batch(rows: slice, dtype: str, loss: str | None, optional: list[str], **faults: Any) -> Any:
    """Some of two observations; `faults` are values of the first."""
    rng = np.random.default_rng(7)
    columns: dict[str, Any] = {"sample_ids": np.array([-70, 71])}
    columns |= {name: rng.integers(*OPTIONAL[name], 2).astype(np.int32) for name in optional}
    if loss:
        columns["losses"] = np.array([2.5, 1.25], loss)
    weights = rng.dirichlet(np.ones(5), (2, 3))
    for name, value in faults.items():
        if name == "weight":
            weights[0, 1, 2] = value
        else:
            columns[name][0] = value
    tensors = {name: to_tensor(column[rows]) for name, column in columns.items()}
    return routing_pb2.ObservationBatch(
        step=4, group="math", weights=weights_tensor(weights[rows], dtype), **tensors
    )


def plain(block: Any, row: int) -> dict[str, Any]:
    """Everything of one observation of a block, to the bit."""
    told = {}
    for field in fields(block):
        value = getattr(block, field.name)
        told[field.name] = (value.dtype, value[row].tobytes()) if isinstance(value, np.ndarray) else value
    return told


@given(
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    loss=st.sampled_from([None, "float32", "float64"]),
    optional=st.lists(st.sampled_from(sorted(OPTIONAL)), unique=True),
)
def test_read_as_beside_another(dtype: str, loss: str | None, optional: list[str]) -> None:
    alone = decode_batch(batch(slice(0, 1), dtype, loss, optional), 3, SHAPE)
    beside = decode_batch(batch(slice(0, 2), dtype, loss, optional), 3, SHAPE)

    assert alone.weights_NLK.shape == (1, 3, 5)
    assert plain(alone, 0) == plain(beside, 0)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_zero_with_a_sign_is_read_as_beside_another(dtype: str) -> None:
    """As bits it lies above all numbers that are not negative."""
    weights = np.tile([-0.0, 0.25, 0.75, 0.0, -0.0], (2, 3, 1))

    def decoded(n: int) -> Any:
        ids = to_tensor(np.arange(n))
        read = routing_pb2.ObservationBatch(
            step=4, group="math", sample_ids=ids, weights=weights_tensor(weights[:n], dtype)
        )
        return decode_batch(read, 3, SHAPE)

    assert plain(decoded(1), 0) == plain(decoded(2), 0)


FAULTS = {
    "NaN": {"weight": np.nan},
    "Inf": {"weight": np.inf},
    "negative": {"weight": -0.25},
    "not one": {"weight": 0.9},
    "loss NaN": {"losses": np.nan},
    "loss infinite": {"losses": np.inf},
    "loss negative": {"losses": -1},
    "no token": {"token_counts": 0},
    "target": {"targets": -2},
    "visits": {"visits": -2},
}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("limit", [None, 1])
def test_refused_as_beside_another(dtype: str, fault: dict[str, Any], limit: int | None) -> None:
    def admit(group: str, step: int, sample_ids: Any) -> Any:
        return admission(
            "run", group, sample_ids, limit
        )  # 1: wanted is only who has the smallest of all hashes

    refusals = []
    for rows in (slice(0, 1), slice(0, 2)):
        with pytest.raises(RefusedError) as refused:
            decode_batch(batch(rows, dtype, "float64", sorted(OPTIONAL), **fault), 0, SHAPE, admit)
        refusals.append(
            (refused.value.code, refused.value.message, refused.value.field, refused.value.sample_id)
        )

    assert refusals[0] == refusals[1]
    assert refusals[0][3] == -70


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_the_window_does_not_want_is_left_out(dtype: str) -> None:
    block = decode_batch(
        batch(slice(0, 1), dtype, "float32", ["visits"]),
        0,
        SHAPE,
        lambda group, step, ids: admission("run", group, ids, 1),
    )

    assert block.observations == 1
    assert [len(column) for column in (block.sample_ids_N, block.losses_N, block.visits_N)] == [0, 0, 0]
    assert block.weights_NLK.shape == (0, 3, 5)


def test_a_wrong_shape_is_named() -> None:
    wrong = batch(slice(0, 1), "float32", "float32", [])
    wrong.weights.shape[1] = 4

    with pytest.raises(RefusedError, match=r"\[1, 4, 5\]; wanted \[n, L, K\] = \[1, 3, 5\]"):
        decode_batch(wrong, 0, SHAPE)
