"""Routing weights from scores: golden values, an oracle in plain loops, and numbers that overflow naively."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.metrics.routing import (
    ScoreKind,
    bfloat16_to_float32,
    routing_probabilities,
    routing_weights,
)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_golden_logits(golden, kind):
    logits, mask = golden.inputs["logits"], golden.inputs["token_mask"]
    score_kind = {"softmax": ScoreKind.SOFTMAX_LOGITS, "sigmoid": ScoreKind.SIGMOID_LOGITS}[kind]

    routed = routing_weights(logits[mask], score_kind, mask.sum(axis=1))

    np.testing.assert_allclose(routed.weights_NLK, golden.expected[f"routing_weights_{kind}"], rtol=1e-9)
    assert routed.target_weights_NLK is None
    np.testing.assert_array_equal(routed.target_tokens_N, mask.sum(axis=1))


def probability_by_hand(row: list[float], kind: ScoreKind) -> list[float]:
    if kind is ScoreKind.SOFTMAX:
        return row
    if kind is ScoreKind.SIGMOID:
        parts = row
    elif kind is ScoreKind.SIGMOID_LOGITS:
        parts = [1 / (1 + math.exp(-x)) for x in row]
    else:
        parts = [math.exp(x) for x in row]
    return [part / sum(parts) for part in parts]


@pytest.mark.parametrize("kind", list(ScoreKind))
@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    layers=st.integers(1, 3),
    experts=st.integers(1, 5),
    data=st.data(),
)
def test_each_sample_gets_the_mean_over_its_own_tokens(kind, lengths, layers, experts, data):
    activated = kind in (ScoreKind.SOFTMAX, ScoreKind.SIGMOID)
    low, high = (0.01, 1.0) if activated else (-30.0, 30.0)
    tokens = sum(lengths)
    shape = (tokens, layers, experts)
    values = data.draw(st.lists(st.floats(low, high), min_size=math.prod(shape), max_size=math.prod(shape)))
    scores = np.array(values).reshape(shape)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=tokens, max_size=tokens)))

    routed = routing_weights(scores, kind, np.array(lengths), mask.astype(np.uint8))

    start = 0
    for i, length in enumerate(lengths):
        own = range(start, start + length)
        start += length
        targets = [t for t in own if mask[t]]
        assert routed.target_tokens_N[i] == len(targets)
        for layer in range(layers):
            rows = {t: probability_by_hand(scores[t, layer].tolist(), kind) for t in own}
            for k in range(experts):
                mean = sum(rows[t][k] for t in own) / length
                assert routed.weights_NLK[i, layer, k] == pytest.approx(mean, rel=1e-9)
                if routed.target_weights_NLK is not None:
                    target_mean = sum(rows[t][k] for t in targets) / len(targets) if targets else 0
                    assert routed.target_weights_NLK[i, layer, k] == pytest.approx(target_mean, rel=1e-9)
    assert (routed.target_weights_NLK is None) == bool(mask.all())


@pytest.mark.parametrize("kind", [ScoreKind.SOFTMAX_LOGITS, ScoreKind.SIGMOID_LOGITS])
@pytest.mark.parametrize("offset", [-3e4, 3e4])
def test_extreme_logits_stay_probabilities(kind, offset):
    probabilities = routing_probabilities(np.array([[offset, offset + 1, offset - 2]], np.float32), kind)

    assert np.isfinite(probabilities).all()
    assert probabilities.sum() == pytest.approx(1, rel=1e-12)


def test_sigmoid_of_very_negative_logits_keeps_their_order():
    # Every sigmoid underflows to 0 in float64; their ratios do not.
    probabilities = routing_probabilities(np.array([-1000.0, -1001.0]), ScoreKind.SIGMOID_LOGITS)

    np.testing.assert_allclose(probabilities, [1 / (1 + math.exp(-1)), 1 / (1 + math.e)], rtol=1e-9)


def test_half_precision_is_summed_in_float64():
    scores = np.random.default_rng(0).normal(size=(5000, 1, 8)).astype(np.float16)

    routed = routing_weights(scores, ScoreKind.SOFTMAX_LOGITS, np.array([5000]))

    exact = np.exp(scores.astype(np.float64))
    exact /= exact.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(routed.weights_NLK[0], exact.mean(axis=0), rtol=1e-12)


def test_bfloat16_is_the_upper_half_of_float32():
    values = np.array([0.0, -0.0, 1.0, -2.5, 3.0e38, 1e-40, np.inf, -np.inf], np.float32)
    raw = (values.view(np.uint32) >> 16).astype(np.uint16)

    back = bfloat16_to_float32(raw.reshape(2, 4))

    assert back.dtype == np.float32
    assert back.shape == (2, 4)
    np.testing.assert_array_equal(back.ravel().view(np.uint32), values.view(np.uint32) & 0xFFFF0000)
    assert np.isnan(bfloat16_to_float32(np.array([0x7FC0], np.uint16)))
