"""Pathways: golden strings, an oracle in plain loops, ties, thresholds that nothing exceeds, many experts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pathwatch.server.metrics import arrays
from pathwatch.server.metrics.pathways import (
    layer_pathways,
    literal,
    pathways,
    pathways_at,
    rank_experts,
)


def pathway_by_hand(weights_LK, threshold: float) -> list[list[int]]:
    """Experts of each layer, as the paper words it."""
    layers = []
    for row in weights_LK.tolist():
        order = sorted(range(len(row)), key=lambda k: (-row[k], k))
        chosen, total = [], 0.0
        for k in order:
            chosen.append(k)
            total += row[k]
            if total > threshold:
                break
        layers.append(chosen)
    return layers


def experts_of(pathway: str, experts: int) -> list[list[int]]:
    return [[ord(symbol) for symbol in layer] for layer in pathway.split(chr(experts))]


def test_golden_literal_strings(golden):
    weights = golden.inputs["weights"]
    found = pathways(rank_experts(weights), 0.7)
    assert [literal(p, weights.shape[2]) for p in found] == golden.expected["pathways_literal_tau_0_7"]


@given(
    # Few distinct values: ties in nearly every row. Rows need not sum to one.
    weights=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 9)),
        elements=st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0]),
    ),
    threshold=st.sampled_from([0.0, 0.25, 0.5, 0.7, 1.0]),
)
def test_matches_plain_loops(weights, threshold):
    found = pathways(rank_experts(weights), threshold)

    expected = [pathway_by_hand(weights_LK, threshold) for weights_LK in weights]
    assert [experts_of(p, weights.shape[2]) for p in found] == expected
    assert [literal(p, weights.shape[2]) for p in found] == [
        "-".join(",".join(map(str, layer)) for layer in layers) for layers in expected
    ]


@pytest.mark.parametrize("experts", [254, 255, 256, 300, 0xD7FF, 0xD800, 60_000])
def test_any_number_of_experts(make_weights, experts):
    weights = make_weights(2, 2, experts, noise=2.0)
    weights[0, 0] = 0
    weights[0, 0, experts - 1] = 1  # The last index, just below the separator.

    found = pathways(rank_experts(weights), 0.7)

    assert [experts_of(p, experts) for p in found] == [pathway_by_hand(w, 0.7) for w in weights]
    assert literal(found[0], experts).startswith(f"{experts - 1}-")


def test_the_threshold_must_be_exceeded_not_met():
    weights = np.array([[[0.5, 0.25, 0.25]]], np.float32)
    assert [len(pathways(rank_experts(weights), threshold)[0]) for threshold in (0.49, 0.5, 0.75)] == [
        1,
        2,
        3,
    ]


def test_all_experts_where_none_exceeds():
    # Half precision may leave a row a little below one.
    weights = np.array([[[0.4, 0.3, 0.29]]], np.float32)
    assert experts_of(pathways(rank_experts(weights), 0.995)[0], 3) == [[0, 1, 2]]


def test_ties_take_the_lower_index_first():
    uniform = np.full((1, 2, 8), 1 / 8, np.float32)
    assert literal(pathways(rank_experts(uniform), 0.7)[0], 8) == "0,1,2,3,4,5-0,1,2,3,4,5"


def test_layers_are_cut_at_the_separators(make_weights):
    weights = make_weights(5, 3, 8)
    whole = pathways(rank_experts(weights), 0.6)

    layers = layer_pathways(whole, 8)

    assert len(layers) == 3
    for layer in range(3):
        assert list(layers[layer]) == pathways(rank_experts(weights[:, layer : layer + 1]), 0.6)


def test_input_is_not_changed(make_weights):
    weights = make_weights(3, 2, 4)
    before = weights.copy()
    pathways(rank_experts(weights), 0.7)
    np.testing.assert_array_equal(weights, before)


@given(
    weights=hnp.arrays(
        np.float16,
        st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 9)),
        elements=st.sampled_from([0.0, -0.0, 2.0**-24, 0.125, 0.25, 0.5, 1.0]),
    )
)
def test_precision_does_not_change_the_ranking(weights):
    expected = np.argsort(-weights.astype(np.float64), axis=-1, kind="stable")
    for dtype in (np.float16, np.float32, np.float64):
        np.testing.assert_array_equal(rank_experts(weights.astype(dtype)).order_NLM, expected)


@pytest.mark.parametrize("experts", [2, 64, 256, 300])
@pytest.mark.parametrize("wire", [np.float16, np.float32])
def test_weights_with_and_without_room_for_an_index_are_ranked_alike(make_weights, experts, wire):
    """Values that came as fp16 leave 13 bits; one full float32 among them leaves none."""
    weights = make_weights(6, 3, experts, noise=0.3).astype(wire).astype(np.float32)
    weights[:, :, 1] = weights[:, :, 0]
    weights[5, 2, 0] = np.float32(0.1)

    whole, first = rank_experts(weights), rank_experts(weights[:5])

    expected = np.argsort(-weights.astype(np.float64), axis=-1, kind="stable")
    np.testing.assert_array_equal(whole.order_NLM, expected)
    np.testing.assert_array_equal(first.order_NLM, expected[:5])
    sums = np.cumsum(np.take_along_axis(weights, expected, axis=-1), axis=-1, dtype=np.float64)
    np.testing.assert_array_equal(whole.cumulative_NLM, sums)
    np.testing.assert_array_equal(first.cumulative_NLM, sums[:5])


@pytest.mark.parametrize("noise", [0.1, 1.0, 4.0])
def test_several_thresholds_in_small_blocks_are_each_by_itself(make_weights, monkeypatch, noise):
    """Flat routing needs the second half of the experts, peaked routing does not."""
    weights = make_weights(23, 3, 10, noise=noise)
    thresholds = (0.7, 0.5, 0.95)
    expected = [pathways(rank_experts(weights), threshold) for threshold in thresholds]
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 5 * 3 * 10 * 8)
    assert pathways_at(weights, thresholds) == expected
