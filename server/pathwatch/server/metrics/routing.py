"""Routing weights from per-token router scores (docs/metrics.md).

Shape letters: T tokens of all samples one after the other, N samples, L routed MoE layers, K experts.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit

from pathwatch.server.metrics.arrays import Floats, Ints


class ScoreKind(enum.IntEnum):
    """What router scores are; values equal pathwatch.v1.ScoreKind."""

    SOFTMAX_LOGITS = 1
    SIGMOID_LOGITS = 2
    SOFTMAX = 3
    SIGMOID = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingWeights:
    """Mean routing weights of n samples, and how many tokens carry a loss."""

    weights_NLK: NDArray[np.float64]
    """Over all real tokens."""
    target_weights_NLK: NDArray[np.float64] | None
    """Over target tokens; None when all tokens are. Zeros for a sample that has none."""
    target_tokens_N: NDArray[np.int64]


def bfloat16_to_float32(raw: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Exact float32 values of bfloat16 bit patterns, same shape."""
    return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)


def routing_probabilities(scores: Floats, kind: ScoreKind) -> NDArray[np.float64]:
    """Routing probabilities p [..., K] of scores [..., K], summed and divided in float64.

    Softmax of logits; for sigmoid routers (DeepSeek-V3) the sigmoid scores divided by their sum. Softmax
    probabilities are taken as they are.
    """
    values = scores.astype(np.float64)
    match kind:
        case ScoreKind.SOFTMAX_LOGITS:
            return _softmax(values)
        case ScoreKind.SIGMOID_LOGITS:
            # sigmoid(x) / Σ sigmoid(x) = softmax(ln sigmoid(x)): stays finite where every sigmoid underflows.
            return _softmax(np.asarray(log_expit(values)))
        case ScoreKind.SOFTMAX:
            return values
        case ScoreKind.SIGMOID:
            return _normalized(values)


def routing_weights(
    scores_TLK: Floats, kind: ScoreKind, lengths_N: Ints, target_mask_T: NDArray[np.generic] | None = None
) -> RoutingWeights:
    """Mean routing probabilities of each sample over its tokens.

    `lengths_N` are the samples' token counts in order, each >= 1, summing to T. `target_mask_T` is true
    (or 1) where a token carries a loss; None = everywhere. Scores may be float16, float32 or float64.
    """
    n = len(lengths_N)
    ends_N = np.cumsum(lengths_N, dtype=np.int64)
    mask_T = None if target_mask_T is None else target_mask_T.astype(bool)
    weights_NLK = np.empty((n, *scores_TLK.shape[1:]), dtype=np.float64)
    target_weights_NLK = np.zeros_like(weights_NLK)
    target_tokens_N = np.asarray(lengths_N, dtype=np.int64).copy()
    # One sample at a time: the float64 copy stays in cache and never grows to the batch's size.
    for i, (end, length) in enumerate(zip(ends_N, lengths_N, strict=True)):
        tokens = slice(end - length, end)
        probabilities_tLK = routing_probabilities(scores_TLK[tokens], kind)
        weights_NLK[i] = probabilities_tLK.mean(axis=0)
        if mask_T is not None:
            target_tokens_N[i] = np.count_nonzero(mask_T[tokens])
            if target_tokens_N[i]:
                target_weights_NLK[i] = probabilities_tLK[mask_T[tokens]].mean(axis=0)
    all_targets = mask_T is None or bool(mask_T.all())
    return RoutingWeights(
        weights_NLK=weights_NLK,
        target_weights_NLK=None if all_targets else target_weights_NLK,
        target_tokens_N=target_tokens_N,
    )


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return _normalized(np.exp(values - values.max(axis=-1, keepdims=True)))


def _normalized(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(values / values.sum(axis=-1, keepdims=True))
