"""Routing weights from what a router gives out, whatever kind of score that is."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import torch
from torch import Tensor

_SUM_TOLERANCE = 1e-2
"""Half-precision probabilities of a row may miss one by as much."""


class ScoreKind(enum.Enum):
    """What a router's scores are."""

    SOFTMAX_LOGITS = "softmax logits"
    SIGMOID_LOGITS = "sigmoid logits"
    PROBABILITIES = "probabilities"


def routing_weights(scores_TK: Tensor, kind: ScoreKind) -> Tensor:
    """Routing weights p [T, K], float32, rows summing to one (docs/metrics.md; paper §4.1).

    Softmax of logits; for sigmoid routers the sigmoid scores divided by their sum; probabilities as they are.
    """
    scores_TK = scores_TK.detach().float()
    match kind:
        case ScoreKind.SOFTMAX_LOGITS:
            return scores_TK.softmax(dim=-1)
        case ScoreKind.SIGMOID_LOGITS:
            sigmoid_TK = scores_TK.sigmoid()
            return sigmoid_TK / sigmoid_TK.sum(dim=-1, keepdim=True)
        case ScoreKind.PROBABILITIES:
            return scores_TK


def detect_kind(scores_TK: Tensor, output: object) -> ScoreKind:
    """What `scores_TK` is, from its values and from the weights the router chose by it.

    Some transformers releases give probabilities under the name of logits: rows that are nonnegative and sum
    to one. Softmax and sigmoid routers look alike until their weights are compared: the ratio of the weights
    of two chosen experts is the ratio of the true scores, whether or not a router renormalizes. Reads values
    on the host: once per router, not per step.
    """
    scores_TK = scores_TK.detach().float()
    if bool((scores_TK >= 0).all()) and bool(((scores_TK.sum(dim=-1) - 1).abs() < _SUM_TOLERANCE).all()):
        return ScoreKind.PROBABILITIES
    chosen = _chosen(scores_TK, output)
    if chosen is None:
        return ScoreKind.SOFTMAX_LOGITS
    weights_TC, logits_TC = chosen
    softmax_error = _ratio_error(weights_TC, logits_TC)
    sigmoid_error = _ratio_error(weights_TC, torch.nn.functional.logsigmoid(logits_TC))
    return ScoreKind.SIGMOID_LOGITS if sigmoid_error < softmax_error else ScoreKind.SOFTMAX_LOGITS


def _chosen(scores_TK: Tensor, output: object) -> tuple[Tensor, Tensor] | None:
    """Weights [T, C] of the chosen experts and their scores; None where fewer than two are told."""
    if not isinstance(output, Sequence):
        return None
    tensors = [item.detach() for item in output if isinstance(item, Tensor) and item.ndim == 2]
    rows = [item for item in tensors if item.shape[0] == scores_TK.shape[0]]
    indices = [item for item in rows if not item.is_floating_point() and item.shape[1] > 1]
    for index_TC in indices:
        for weights in rows:
            if weights.is_floating_point() and weights.shape == index_TC.shape:
                return weights.float(), scores_TK.gather(1, index_TC.long())
    return None


def _ratio_error(weights_TC: Tensor, log_scores_TC: Tensor) -> float:
    """How far log weights and log scores are from differing by one constant per token."""
    difference_TC = weights_TC.clamp_min(1e-12).log() - log_scores_TC
    return float((difference_TC - difference_TC.mean(dim=1, keepdim=True)).abs().mean())
