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

FLOAT32 = 1e-6
"""How far, relatively, weights reduced from less than float64 are off: docs/metrics.md."""


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_golden_logits(golden, kind):
    logits, mask = golden.inputs["logits"], golden.inputs["token_mask"]
    score_kind = {"softmax": ScoreKind.SOFTMAX_LOGITS, "sigmoid": ScoreKind.SIGMOID_LOGITS}[kind]

    exact = routing_weights(logits[mask].astype(np.float64), score_kind, mask.sum(axis=1))
    routed = routing_weights(logits[mask].astype(np.float32), score_kind, mask.sum(axis=1))

    expected = golden.expected[f"routing_weights_{kind}"]
    np.testing.assert_allclose(exact.weights_NLK, expected, rtol=1e-9)
    np.testing.assert_allclose(routed.weights_NLK, expected, rtol=FLOAT32)
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


def exact_weights(scores_TLK, kind, tokens):
    """Mean over tokens in float64, by the definition."""
    values_tLK = scores_TLK[tokens].astype(np.float64)
    if kind is ScoreKind.SIGMOID_LOGITS:
        values_tLK = np.minimum(values_tLK, 0) - np.log1p(np.exp(-np.abs(values_tLK)))
    if kind in (ScoreKind.SOFTMAX_LOGITS, ScoreKind.SIGMOID_LOGITS):
        values_tLK = np.exp(values_tLK - values_tLK.max(axis=-1, keepdims=True))
    if kind is not ScoreKind.SOFTMAX:
        values_tLK = values_tLK / values_tLK.sum(axis=-1, keepdims=True)
    return values_tLK.mean(axis=0) if len(values_tLK) else np.zeros(values_tLK.shape[1:])


def on_the_wire(scores, dtype):
    """What the server gets for scores of a type, and the numbers those bits stand for."""
    if dtype == "bfloat16":
        raw = (scores.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return raw, (raw.astype(np.uint32) << 16).view(np.float32)
    return scores.astype(dtype), scores.astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", list(ScoreKind))
@given(
    lengths=st.lists(st.integers(1, 100), min_size=1, max_size=3),
    layers=st.integers(1, 3),
    experts=st.integers(1, 70),
    scale=st.sampled_from([0.1, 3.0, 50.0, 1e4]),
    offset=st.sampled_from([0.0, 1e4, -1e4]),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_comes_on_the_wire_is_reduced_within_the_stated_tolerance(
    kind, dtype, lengths, layers, experts, scale, offset, seed
):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(sum(lengths), layers, experts)) * scale + offset
    if kind is ScoreKind.SOFTMAX:
        scores = rng.dirichlet(np.full(experts, 0.3), scores.shape[:2])
    elif kind is ScoreKind.SIGMOID:
        scores = rng.uniform(0.01, 1, scores.shape)
    sent, meant = on_the_wire(scores, dtype)
    mask = rng.uniform(size=len(scores)) < rng.choice([0.1, 0.9])

    routed = routing_weights(sent, kind, np.array(lengths), mask)

    for i, end in enumerate(np.cumsum(lengths)):
        own = np.arange(end - lengths[i], end)
        targets = own[mask[own]]
        assert routed.target_tokens_N[i] == len(targets)
        tolerance = {"rtol": FLOAT32, "atol": 1e-12}
        np.testing.assert_allclose(routed.weights_NLK[i], exact_weights(meant, kind, own), **tolerance)
        if routed.target_weights_NLK is not None:
            expected = exact_weights(meant, kind, targets)
            np.testing.assert_allclose(routed.target_weights_NLK[i], expected, **tolerance)


@pytest.mark.parametrize("kind", list(ScoreKind))
def test_a_sample_is_reduced_alike_in_any_company(kind):
    rng = np.random.default_rng(3)
    scores = rng.dirichlet(np.full(20, 0.5), (300, 4)).astype(np.float32)
    if kind in (ScoreKind.SOFTMAX_LOGITS, ScoreKind.SIGMOID_LOGITS):
        scores = np.log(scores + 1e-6).astype(np.float32)
        scores[:100] += 1e3  # of a neighbour that needs care
    lengths = np.array([100, 150, 50])

    together = routing_weights(scores, kind, lengths)

    for i, end in enumerate(np.cumsum(lengths)):
        alone = routing_weights(scores[end - lengths[i] : end], kind, lengths[i : i + 1])
        np.testing.assert_array_equal(together.weights_NLK[i], alone.weights_NLK[0])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [ScoreKind.SOFTMAX_LOGITS, ScoreKind.SIGMOID_LOGITS])
def test_one_score_that_is_no_number_shows_in_its_sample_alone(kind, bad, dtype):
    scores = np.random.default_rng(1).normal(size=(400, 2, 8))
    scores[250, 1, 3] = bad
    sent, _ = on_the_wire(scores, dtype)

    routed = routing_weights(sent, kind, np.array([200, 190, 10]))

    assert [bool(np.isfinite(weights).all()) for weights in routed.weights_NLK] == [True, False, True]


def test_many_tokens_are_summed_in_float64():
    scores = np.random.default_rng(0).normal(size=(200_000, 1, 8)).astype(np.float16)

    routed = routing_weights(scores, ScoreKind.SOFTMAX_LOGITS, np.array([200_000]))

    exact = np.exp(scores.astype(np.float64))
    exact /= exact.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(routed.weights_NLK[0], exact.mean(axis=0), rtol=FLOAT32)


def test_bfloat16_is_the_upper_half_of_float32():
    values = np.array([0.0, -0.0, 1.0, -2.5, 3.0e38, 1e-40, np.inf, -np.inf], np.float32)
    raw = (values.view(np.uint32) >> 16).astype(np.uint16)

    back = bfloat16_to_float32(raw.reshape(2, 4))

    assert back.dtype == np.float32
    assert back.shape == (2, 4)
    np.testing.assert_array_equal(back.ravel().view(np.uint32), values.view(np.uint32) & 0xFFFF0000)
    assert np.isnan(bfloat16_to_float32(np.array([0x7FC0], np.uint16)))
