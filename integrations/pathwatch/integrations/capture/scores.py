"""Routing weights from what a router gives out, whatever kind of score that is."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import logsigmoid

_SUM_TOLERANCE = 1e-2
"""Half-precision probabilities of a row may miss one by as much."""
_RATIO_TOLERANCE = 0.05
"""Mean error of log weights up to which a kind of score explains them; the wrong kind misses by far more."""


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


def are_probabilities(scores_TK: Tensor) -> bool:
    """Whether rows are nonnegative and sum to one. Reads values on the host."""
    scores_TK = scores_TK.float()
    return bool((scores_TK >= 0).all()) and bool(((scores_TK.sum(dim=-1) - 1).abs() < _SUM_TOLERANCE).all())


def kinds_explaining(scores_TK: Tensor, outputs: Sequence[Tensor]) -> list[ScoreKind] | None:
    """The kinds of score that explain the weights a router gave its chosen experts.

    Softmax and sigmoid logits look alike until those weights are compared: the ratio of the weights of two
    chosen experts of a token is the ratio of their true scores, whether or not the router renormalizes,
    scales, or chose by something else. With one expert per token, weights of different tokens are compared.

    Args:
        scores_TK: logits.
        outputs: everything the router gave out, on the host: among it weights and indices of chosen experts
            [T, C], or weights [T, K] that are zero for the others.

    Returns:
        None where the outputs tell nothing; an empty list where they contradict both kinds.
    """
    chosen = _chosen(scores_TK, outputs)
    if chosen is None:
        return None
    weights_TC, index_TC = chosen
    log_weights_TC = weights_TC.float().clamp_min(1e-12).log()
    if weights_TC.shape[1] == 1 and float(log_weights_TC.std()) < _RATIO_TOLERANCE:
        return None  # Normalized over the one expert chosen: all weights are alike.
    logits_TK = scores_TK.float()
    candidates = {
        ScoreKind.SOFTMAX_LOGITS: logits_TK.log_softmax(dim=-1),
        ScoreKind.SIGMOID_LOGITS: logsigmoid(logits_TK),
    }
    return [
        kind
        for kind, log_scores_TK in candidates.items()
        if _ratio_error(log_weights_TC - log_scores_TK.gather(1, index_TC)) < _RATIO_TOLERANCE
    ]


def _chosen(scores_TK: Tensor, outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor] | None:
    """Weights [T, C] of the chosen experts and which those are."""
    T, K = scores_TK.shape
    rows = [item.reshape(T, -1) for item in outputs if item.ndim >= 2 and item.numel() % T == 0]
    floats = [item for item in rows if item.is_floating_point()]
    for index_TC in rows:
        if not index_TC.is_floating_point() and index_TC.shape[1] < K:
            for weights_TC in floats:
                if weights_TC.shape == index_TC.shape:
                    return weights_TC, index_TC.long()
    for dense_TK in floats:
        counts = (dense_TK != 0).sum(dim=1)
        chosen = int(counts[0])
        if dense_TK.shape[1] == K and 0 < chosen < K and bool((counts == chosen).all()):
            weights_TC, index_TC = dense_TK.topk(chosen, dim=1)
            return weights_TC, index_TC
    return None


def _ratio_error(difference_TC: Tensor) -> float:
    """How far log weights and log scores are from differing by one constant per token (C > 1) or overall."""
    dim = 1 if difference_TC.shape[1] > 1 else 0
    return float((difference_TC - difference_TC.mean(dim=dim, keepdim=True)).abs().mean())
