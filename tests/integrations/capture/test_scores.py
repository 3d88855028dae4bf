"""Routing weights from router scores, and telling what kind of score it is."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.integrations.capture.scores import (
    ScoreKind,
    are_probabilities,
    kinds_explaining,
    routing_weights,
)

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


def true_scores(logits_TK: torch.Tensor, kind: ScoreKind) -> torch.Tensor:
    return logits_TK.softmax(-1) if kind is ScoreKind.SOFTMAX_LOGITS else logits_TK.sigmoid()


@pytest.mark.parametrize("chosen", [1, 3])
@pytest.mark.parametrize("form", ["indices", "zeros elsewhere"])
@pytest.mark.parametrize("kind", [ScoreKind.SOFTMAX_LOGITS, ScoreKind.SIGMOID_LOGITS])
def test_kind_shows_in_the_chosen_weights(kind: ScoreKind, form: str, chosen: int) -> None:
    logits_TK = torch.randn(32, 8, generator=torch.Generator().manual_seed(1)) * 2
    top, index = true_scores(logits_TK, kind).topk(chosen, dim=-1)
    dense = torch.zeros(32, 8).scatter(1, index, top)
    outputs = [top * 2.5, index] if form == "indices" else [dense]
    assert kinds_explaining(logits_TK, outputs) == [kind]


@pytest.mark.parametrize("kind", [ScoreKind.SOFTMAX_LOGITS, ScoreKind.SIGMOID_LOGITS])
def test_renormalized_weights_tell_as_much(kind: ScoreKind) -> None:
    """Also those of experts that were chosen by something else, a bias say."""
    logits_TK = torch.randn(32, 8, generator=torch.Generator().manual_seed(1)) * 2
    index = (true_scores(logits_TK, kind) + torch.rand(8, generator=torch.Generator().manual_seed(2))).topk(
        3
    )[1]
    top = true_scores(logits_TK, kind).gather(1, index)
    assert kinds_explaining(logits_TK, [index, top / top.sum(-1, keepdim=True)]) == [kind]


def test_other_scores_are_explained_by_neither() -> None:
    logits_TK = torch.randn(32, 8, generator=torch.Generator().manual_seed(1)) * 2
    top, index = torch.nn.functional.softplus(logits_TK).sqrt().topk(3)
    assert kinds_explaining(logits_TK, [top, index]) == []


def test_nothing_is_told_by_one_normalized_expert_nor_by_logits_alone() -> None:
    logits_TK = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
    assert kinds_explaining(logits_TK, [torch.ones(32, 1), logits_TK.argmax(-1, keepdim=True)]) is None
    assert kinds_explaining(logits_TK, []) is None


def test_probabilities_given_as_logits_are_noticed() -> None:
    logits_TK = torch.randn(16, 8, generator=torch.Generator().manual_seed(2))
    assert are_probabilities(logits_TK.softmax(-1).half())
    assert not are_probabilities(logits_TK)
    assert not are_probabilities(logits_TK.sigmoid())
