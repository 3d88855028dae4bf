"""Effective dimension: golden values, plain loops, and cases with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathwatch.server.metrics import arrays, dimension
from pathwatch.server.metrics.dimension import effective_dimension, effective_dimensions


def dimension_by_hand(weights, ridge: float) -> float:
    n, layers, experts = weights.shape
    gram = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            for layer in range(layers):
                for k in range(experts):
                    gram[i, j] += float(weights[i, layer, k]) * float(weights[j, layer, k]) / (n * layers)
    return float(np.trace(gram @ np.linalg.inv(gram + ridge * np.eye(n))))


def test_golden(golden):
    for ridge, value in golden.expected["effective_dimension"].items():
        found = effective_dimension(golden.inputs["weights"], float(ridge)).value
        assert found == pytest.approx(value, rel=1e-9)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 3), st.integers(1, 4))
def test_matches_plain_loops_on_either_side(seed, n, layers, experts):
    weights = np.random.default_rng(seed).dirichlet(np.ones(experts), size=(n, layers)).astype(np.float32)
    assert effective_dimension(weights, 0.01).value == pytest.approx(
        dimension_by_hand(weights, 0.01), rel=1e-9
    )


@given(st.integers(0, 10**6), st.integers(2, 10), st.integers(2, 3))
def test_neither_order_nor_repetition_of_samples_matters(seed, n, times):
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.ones(4), size=(n, 2))
    value = effective_dimension(weights, 0.01).value
    assert effective_dimension(weights[generator.permutation(n)], 0.01).value == pytest.approx(value)
    assert effective_dimension(np.tile(weights, (times, 1, 1)), 0.01).value == pytest.approx(value)


@pytest.mark.parametrize("n", [1, 5, 100])
def test_samples_all_alike_span_one_direction(n):
    one_hot = np.zeros((n, 3, 8), np.float32)
    one_hot[..., 2] = 1
    assert effective_dimension(one_hot, 0.01).value == pytest.approx(1 / 1.01)
    uniform = np.full((n, 3, 8), 1 / 8, np.float32)
    assert effective_dimension(uniform, 0.01).value == pytest.approx((1 / 8) / (1 / 8 + 0.01))


def test_every_sample_its_own_expert_spans_as_many_directions_as_samples():
    weights = np.eye(6, dtype=np.float32)[:, None, :]
    assert effective_dimension(weights, 1e-9).value == pytest.approx(6)


def test_golden_in_one_sweep(golden):
    by_ridge = golden.expected["effective_dimension"]
    found = effective_dimensions(golden.inputs["weights"], [float(ridge) for ridge in by_ridge])
    assert found.tolist() == pytest.approx(list(by_ridge.values()), rel=1e-9)


@given(
    st.integers(0, 10**6),
    st.integers(1, 10),
    st.lists(st.floats(1e-6, 10), min_size=2, max_size=6, unique=True),
)
def test_more_shrinking_leaves_fewer_directions(seed, n, ridges):
    weights = np.random.default_rng(seed).dirichlet(np.ones(4), size=(n, 2))
    found = effective_dimensions(weights, sorted(ridges))
    assert (np.diff(found) <= 0).all()
    assert found[0] <= min(n, 8)
    assert found[-1] > 0


@pytest.mark.parametrize("layers_at_once", [3, 40])
def test_large_models_are_summed_in_float32_to_a_millionth(make_weights, monkeypatch, layers_at_once):
    weights = make_weights(150, 40, 64)
    exact = effective_dimension(weights.astype(np.float64), 0.01)
    assert effective_dimension(weights, 0.01).value == pytest.approx(exact.value, rel=1e-12)
    monkeypatch.setattr(arrays, "LARGE_MODEL", 40 * 64 - 1)
    monkeypatch.setattr(dimension, "GRAM_BYTES", layers_at_once * 150 * 64 * 8)
    found = effective_dimension(weights, 0.01)
    assert found.value != exact.value
    assert found.value == pytest.approx(exact.value, rel=1e-6)
    np.testing.assert_allclose(found.influence_N, exact.influence_N, rtol=1e-5)


@pytest.mark.parametrize("ridge", [1e-300, 1e-14, 1e-9])
def test_next_to_no_shrinking_counts_what_is_not_nothing(ridge):
    # 70 samples of 7 kinds: 7 directions, and 63 that are nothing but rounding.
    weights = np.tile(np.eye(7, dtype=np.float32), (10, 1)).reshape(70, 1, 7).repeat(12, axis=1)
    found = effective_dimension(weights, ridge)
    assert 6.99 < found.value <= 70
    assert np.isfinite(found.influence_N).all()


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(3, 12), st.integers(1, 3), st.integers(1, 4))
def test_influence_is_what_a_little_more_of_a_sample_changes(seed, n, layers, experts):
    weights = np.random.default_rng(seed).dirichlet(np.ones(experts), size=(n, layers))
    influence_N = effective_dimension(weights, 0.01).influence_N

    def with_shares(shares_N):
        rows = weights.reshape(n, -1) * np.sqrt(shares_N / layers)[:, None]
        gram = rows @ rows.T
        return float(np.trace(gram @ np.linalg.inv(gram + 0.01 * np.eye(n))))

    for sample in range(n):
        step = 1e-5 * np.eye(n)[sample]
        slope = (with_shares(1 / n + step) - with_shares(1 / n - step)) / 2e-5
        assert slope == pytest.approx(influence_N[sample], rel=1e-4, abs=1e-7)
