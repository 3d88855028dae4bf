"""Routing weights from router scores, and telling what kind of score it is."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.integrations.capture.scores import ScoreKind, detect_kind, routing_weights

logits = st.lists(st.lists(st.floats(-8, 8, width=32), min_size=4, max_size=4), min_size=1, max_size=6).map(
    torch.tensor
)


@given(logits)
def test_softmax_weights_follow_the_definition(scores_TK: torch.Tensor) -> None:
    weights = routing_weights(scores_TK, ScoreKind.SOFTMAX_LOGITS)
    for row, given_row in zip(weights.tolist(), scores_TK.tolist(), strict=True):
        total = sum(math.exp(x) for x in given_row)
        assert row == pytest.approx([math.exp(x) / total for x in given_row], abs=1e-6)


@given(logits)
def test_sigmoid_weights_are_scores_over_their_sum(scores_TK: torch.Tensor) -> None:
    weights = routing_weights(scores_TK, ScoreKind.SIGMOID_LOGITS)
    for row, given_row in zip(weights.tolist(), scores_TK.tolist(), strict=True):
        scores = [1 / (1 + math.exp(-x)) for x in given_row]
        assert row == pytest.approx([x / sum(scores) for x in scores], abs=1e-6)


def test_half_precision_scores_are_reduced_in_float32() -> None:
    scores_TK = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    weights = routing_weights(scores_TK, ScoreKind.SOFTMAX_LOGITS)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(5))


@pytest.mark.parametrize("renormalized", [True, False])
@pytest.mark.parametrize("kind", [ScoreKind.SOFTMAX_LOGITS, ScoreKind.SIGMOID_LOGITS])
def test_kind_shows_in_the_chosen_weights(kind: ScoreKind, renormalized: bool) -> None:
    scores_TK = torch.randn(32, 8, generator=torch.Generator().manual_seed(1)) * 2
    true = scores_TK.softmax(-1) if kind is ScoreKind.SOFTMAX_LOGITS else scores_TK.sigmoid()
    top, index = true.topk(3, dim=-1)
    if renormalized:
        top = top / top.sum(-1, keepdim=True) * 2.5
    assert detect_kind(scores_TK, (scores_TK, top, index)) is kind


def test_probabilities_given_as_logits_are_noticed() -> None:
    probabilities = torch.randn(16, 8, generator=torch.Generator().manual_seed(2)).softmax(-1)
    kind = detect_kind(probabilities.half(), probabilities)
    assert kind is ScoreKind.PROBABILITIES
    torch.testing.assert_close(routing_weights(probabilities, kind), probabilities)


def test_bare_logits_count_as_softmax() -> None:
    scores_TK = torch.randn(16, 8, generator=torch.Generator().manual_seed(3))
    assert detect_kind(scores_TK, scores_TK) is ScoreKind.SOFTMAX_LOGITS
