"""Entropy and load: golden values, plain loops, one-hot and uniform routing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.metrics import arrays
from pathwatch.server.metrics.load import expert_load_max_ratio, routing_entropy


def test_golden(golden):
    weights = golden.inputs["weights"]
    assert routing_entropy(weights) == pytest.approx(golden.expected["routing_entropy"], rel=1e-9)
    np.testing.assert_allclose(
        expert_load_max_ratio(weights), golden.expected["expert_load_max_ratio"], rtol=1e-7
    )


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 3), st.integers(1, 6))
def test_matches_plain_loops(seed, n, layers, experts):
    weights = np.random.default_rng(seed).dirichlet(np.ones(experts), size=(n, layers))
    weights[0, 0] = 0
    weights[0, 0, 0] = 1

    entropies = [
        -sum(g * math.log(g) for g in weights[i, layer].tolist() if g > 0)
        for i in range(n)
        for layer in range(layers)
    ]
    assert routing_entropy(weights) == pytest.approx(sum(entropies) / len(entropies), abs=1e-12)
    for layer, ratio in enumerate(expert_load_max_ratio(weights)):
        loads = [sum(weights[i, layer, k] for i in range(n)) / n for k in range(experts)]
        assert ratio == pytest.approx(max(loads) / (sum(loads) / experts))


@pytest.mark.parametrize("noise", [0.1, 1.0, 6.0])
def test_entropy_of_large_models_is_good_to_a_millionth(make_weights, monkeypatch, noise):
    weights = make_weights(30, 12, 48, noise=noise)
    weights[0, 0] = 0
    weights[0, 0, :2] = 1, 1e-42
    expected = -math.fsum(g * math.log(g) for g in weights.astype(float).ravel() if g > 0) / (30 * 12)
    assert routing_entropy(weights) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr(arrays, "LARGE_MODEL", 12 * 48 - 1)
    found = routing_entropy(weights)
    assert found != pytest.approx(expected, rel=1e-12)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("experts", [1, 8])
def test_one_hot_and_uniform(experts):
    one_hot = np.zeros((3, 2, experts), np.float32)
    one_hot[..., 0] = 1
    uniform = np.full((3, 2, experts), 1 / experts, np.float32)
    assert routing_entropy(one_hot) == 0
    assert routing_entropy(uniform) == pytest.approx(math.log(experts))
    np.testing.assert_allclose(expert_load_max_ratio(one_hot), experts)
    np.testing.assert_allclose(expert_load_max_ratio(uniform), 1)
