"""Path consistency: golden values, plain loops over the router's rows, and where it is undefined."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathwatch.server.metrics import arrays
from pathwatch.server.metrics.consistency import (
    adjacent_cosines,
    adjacent_cosines_from_weights,
    grams,
    path_consistency,
)
from pathwatch.server.metrics.window import Geometry


def geometry_of(router_weights) -> Geometry:
    gram_self, gram_next = grams(router_weights)
    return Geometry(
        step=0, gram_self_LKK=gram_self.astype(np.float32), gram_next_LKK=gram_next.astype(np.float32)
    )


def cosines_by_hand(weights_LK, router_LKD) -> list[float]:
    embeddings = [
        [sum(g * row[d] for g, row in zip(gates, rows, strict=True)) for d in range(len(rows[0]))]
        for gates, rows in zip(weights_LK.tolist(), router_LKD.tolist(), strict=True)
    ]
    return [
        sum(a * b for a, b in zip(here, there, strict=True)) / (math.hypot(*here) * math.hypot(*there))
        for here, there in itertools.pairwise(embeddings)
    ]


def test_golden(golden):
    weights, router = golden.inputs["weights"], golden.inputs["router_weights"]
    for cosines in (
        adjacent_cosines(weights, geometry_of(router)),
        adjacent_cosines_from_weights(weights, router),
    ):
        consistency = path_consistency(cosines)
        if weights.shape[1] == 1:
            assert cosines.shape == (len(weights), 0)
            assert np.isnan(consistency).all()
        else:
            np.testing.assert_allclose(cosines, golden.expected["adjacent_cosine"], rtol=1e-5)
            np.testing.assert_allclose(
                consistency, golden.expected["path_consistency"], rtol=1e-4, atol=1e-12
            )


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 5), st.integers(1, 6), st.integers(1, 7))
def test_both_ways_match_plain_loops(seed, n, layers, experts, width):
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.ones(experts), size=(n, layers))
    router = generator.normal(size=(layers, experts, width))

    gram_self, gram_next = grams(router)
    from_grams = adjacent_cosines(weights, Geometry(step=0, gram_self_LKK=gram_self, gram_next_LKK=gram_next))

    for i in range(n):
        np.testing.assert_allclose(from_grams[i], cosines_by_hand(weights[i], router), atol=1e-7)
    np.testing.assert_allclose(adjacent_cosines_from_weights(weights, router), from_grams, atol=1e-7)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=6))
def test_consistency_as_printed_in_the_paper(cosines):
    found = path_consistency(np.array([cosines]))[0]
    if max(cosines) <= 0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(
            1 - sum(cosines) / len(cosines) / (max(cosines) + 1e-8), rel=1e-9, abs=1e-9
        )


def test_an_embedding_without_length_leaves_the_sample_undefined():
    router = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]])
    weights = np.array([[[1, 0], [1, 0], [1, 0]], [[1, 0], [0, 1], [1, 0]]], np.float32)

    cosines = adjacent_cosines(weights, geometry_of(router))

    assert np.isnan(cosines[0]).all()
    np.testing.assert_allclose(cosines[1], [math.sqrt(0.5)] * 2)
    assert np.isnan(path_consistency(cosines)).tolist() == [True, False]


def test_the_same_direction_everywhere_is_perfectly_smooth():
    router = np.tile(np.array([[2.0, 1.0]]), (4, 3, 1))
    weights = np.random.default_rng(0).dirichlet(np.ones(3), size=(5, 4))
    consistency = path_consistency(adjacent_cosines(weights, geometry_of(router)))
    np.testing.assert_allclose(consistency, 0, atol=1e-7)


def cosines_of_grams(weights_NLK, geometry: Geometry):
    """As defined: gᵀMh / √(gᵀGg · hᵀHh), in float64."""
    weights = weights_NLK.astype(np.float64)
    own, following = geometry.gram_self_LKK.astype(np.float64), geometry.gram_next_LKK.astype(np.float64)
    squares = np.einsum("nla,lab,nlb->nl", weights, own, weights)
    products = np.einsum("nla,lab,nlb->nl", weights[:, :-1], following, weights[:, 1:])
    return products / np.sqrt(squares[:, :-1] * squares[:, 1:])


@pytest.mark.parametrize("experts", [5, 64, 65, 131, 200])
def test_of_any_number_of_experts_float64_unless_the_model_is_large(make_weights, monkeypatch, experts):
    weights = make_weights(30, 4, experts)
    geometry = geometry_of(np.random.default_rng(0).normal(size=(4, experts, 32)))
    # As it may be sent: not quite symmetric.
    noise = np.random.default_rng(1).normal(0, 0.1, geometry.gram_self_LKK.shape)
    geometry = replace(geometry, gram_self_LKK=geometry.gram_self_LKK + noise.astype(np.float32))
    expected = cosines_of_grams(weights, geometry)
    np.testing.assert_allclose(adjacent_cosines(weights, geometry), expected, rtol=1e-11, atol=1e-13)
    monkeypatch.setattr(arrays, "LARGE_MODEL", 4 * experts - 1)
    found = adjacent_cosines(weights, geometry)
    assert abs(found - expected).max() > 1e-10
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
