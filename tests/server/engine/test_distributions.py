"""Rows are called weights only if they are, by plain sums in double precision, in any element type."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pathwatch.server.engine.distributions import are_plainly_distributions
from pathwatch.server.engine.tensors import as_float32
from pathwatch.v1 import tensor_pb2

FLOAT32 = tensor_pb2.D_TYPE_FLOAT32
FLOAT16 = tensor_pb2.D_TYPE_FLOAT16
BFLOAT16 = tensor_pb2.D_TYPE_BFLOAT16
SPOILT = [None, math.nan, math.inf, -math.inf, -1e-3, -6e-8, 0.004, 0.02, 3.0]


def narrowed(rows: NDArray[np.float64], dtype: int) -> NDArray[np.generic]:
    """In an element type; bfloat16 by cutting off."""
    if dtype == FLOAT16:
        return rows.astype(np.float16)
    single = rows.astype(np.float32)
    return (single.view(np.uint32) >> 16).astype(np.uint16) if dtype == BFLOAT16 else single


def values(rows: NDArray[np.generic], dtype: int) -> list[list[float]]:
    """In double precision, number by number."""
    if dtype == BFLOAT16:
        rows = np.array([[int(bits) << 16 for bits in row] for row in rows], np.uint32).view(np.float32)
    return [[float(value) for value in row] for row in rows]


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 40),
    experts=st.sampled_from([1, 2, 7, 64, 256]),
    sharpness=st.sampled_from([0.003, 0.1, 1.0, 50.0]),
    dtype=st.sampled_from([FLOAT32, FLOAT16, BFLOAT16]),
    spoilt=st.sampled_from(SPOILT),
    tolerance=st.sampled_from([1e-3, 0.01]),
)
def test_the_quick_look_agrees_with_plain_sums(
    seed: int, rows: int, experts: int, sharpness: float, dtype: int, spoilt: float | None, tolerance: float
) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(experts, sharpness), rows)
    if spoilt is not None:
        where = rng.integers(rows), rng.integers(experts)
        weights[where] = spoilt if spoilt < 0 or not math.isfinite(spoilt) else weights[where] + spoilt
    sent = narrowed(weights, dtype)
    numbers = values(sent, dtype)
    worst = max(abs(math.fsum(row) - 1) if all(map(math.isfinite, row)) else math.inf for row in numbers)
    negative = any(value < 0 for row in numbers for value in row)
    fine = are_plainly_distributions(sent, tolerance)
    if worst > tolerance or negative:
        assert not fine
    elif worst < tolerance - experts * 1e-6:
        assert fine


def test_no_rows_are_fine() -> None:
    assert are_plainly_distributions(np.zeros((0, 2, 4), np.float16), 0.01)


@pytest.mark.parametrize("rows", [1000, 1, 257])
def test_every_row_is_looked_at(rows: int) -> None:
    weights = np.full((rows, 16, 64), 1 / 64, np.float16)
    assert are_plainly_distributions(weights, 0.01)
    for row, layer in ((0, 0), (rows - 1, 15), (rows // 2, 7)):
        wrong = weights.copy()
        wrong[row, layer, 63] = 0.03
        assert not are_plainly_distributions(wrong, 0.01)


def test_every_float16_is_read_exactly() -> None:
    patterns = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    read = as_float32(patterns, FLOAT16)
    expected = np.array([float(value) for value in patterns], np.float32)
    assert read.dtype == np.float32
    assert np.array_equal(np.signbit(read), np.signbit(expected))
    assert np.array_equal(read, expected, equal_nan=True)
