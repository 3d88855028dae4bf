"""Routing weights from per-token router scores (docs/metrics.md).

Shape letters: T tokens of all samples one after the other, N samples, L routed MoE layers, K experts.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.metrics.arrays import Floats, Ints

_CHUNK_SCORES = 1 << 16
"""Scores that are worked on at once: a quarter of a megabyte in float32, which stays in a core's cache."""
_CHUNK_TOKENS = 64
"""At most so many are summed in float32 before they are added up in float64."""
_SAFE_LOGIT = 60.0
"""exp of it and of its negative are far from the ends of float32, also summed over any number of experts."""


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
            return _softmax(-np.logaddexp(0.0, -values))
        case ScoreKind.SOFTMAX:
            return values
        case ScoreKind.SIGMOID:
            return _normalized(values)


def routing_weights(
    scores_TLK: NDArray[np.generic],
    kind: ScoreKind,
    lengths_N: Ints,
    target_mask_T: NDArray[np.generic] | None = None,
) -> RoutingWeights:
    """Mean routing probabilities of each sample over its tokens.

    `lengths_N` are the samples' token counts in order, each >= 1, summing to T. `target_mask_T` is true
    (or 1) where a token carries a loss; None = everywhere. Scores may be float64, float32, float16 or
    bfloat16 bit patterns (uint16). float64 is reduced in float64; of all others the probabilities are
    float32 and their sums over tokens float64: within 1e-6 of the exact mean, relatively, or within 1e-12.
    A sample's result depends on its own tokens alone. It is NaN where one of its scores is NaN
    or infinite.
    """
    n = len(lengths_N)
    ends_N = np.cumsum(lengths_N, dtype=np.int64)
    mask_T = None if target_mask_T is None else target_mask_T.astype(bool)
    weights_NLK = np.zeros((n, *scores_TLK.shape[1:]), dtype=np.float64)
    target_weights_NLK = np.zeros_like(weights_NLK)
    target_tokens_N = np.asarray(lengths_N, dtype=np.int64).copy()
    evaluate = _in_float64 if scores_TLK.dtype == np.float64 else _InFloat32(scores_TLK.shape)
    for i, (end, length) in enumerate(zip(ends_N.tolist(), lengths_N.tolist(), strict=True)):
        for first in range(end - length, end, step := _chunk_tokens(scores_TLK.shape)):
            tokens = slice(first, min(first + step, end))
            values_tLK, factors_tL = evaluate(scores_TLK[tokens], kind)
            weights_NLK[i] += np.einsum("tlk,tl->lk", values_tLK, factors_tL)
            if mask_T is not None:
                factors_tL *= mask_T[tokens, np.newaxis]
                target_weights_NLK[i] += np.einsum("tlk,tl->lk", values_tLK, factors_tL)
        weights_NLK[i] /= length
        if mask_T is not None:
            target_tokens_N[i] = np.count_nonzero(mask_T[end - length : end])
            target_weights_NLK[i] /= max(target_tokens_N[i], 1)
    all_targets = mask_T is None or bool(mask_T.all())
    return RoutingWeights(
        weights_NLK=weights_NLK,
        target_weights_NLK=None if all_targets else target_weights_NLK,
        target_tokens_N=target_tokens_N,
    )


def _chunk_tokens(shape_TLK: tuple[int, ...]) -> int:
    """Tokens that are worked on at once: few enough for the cache, and for a sum in float32."""
    return max(1, min(_CHUNK_TOKENS, _CHUNK_SCORES // max(1, shape_TLK[1] * shape_TLK[2])))


def _in_float64(scores_tLK: NDArray[np.generic], kind: ScoreKind) -> tuple[Floats, Floats]:
    """Probabilities, and what they are to be multiplied by."""
    probabilities_tLK = routing_probabilities(scores_tLK.view(np.float64), kind)
    return probabilities_tLK, np.ones(probabilities_tLK.shape[:2])


class _InFloat32:
    """Scores evaluated in float32, in memory that is used again for the next tokens."""

    def __init__(self, shape_TLK: tuple[int, ...]) -> None:
        self._out_tLK = np.empty((_chunk_tokens(shape_TLK), *shape_TLK[1:]), np.float32)

    def __call__(self, scores_tLK: NDArray[np.generic], kind: ScoreKind) -> tuple[Floats, Floats]:
        """Multiples of the probabilities, and what makes probabilities of them; valid until the next call.

        The latter is NaN where one of the scores is not finite.
        """
        out_tLK = self._out_tLK[: len(scores_tLK)]
        values_tLK = _as_float32(scores_tLK, out_tLK)
        lowest, highest = float(values_tLK.min()), float(values_tLK.max())
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            return out_tLK, np.full(out_tLK.shape[:2], np.nan, np.float32)
        match kind:
            case ScoreKind.SOFTMAX:
                return values_tLK, np.ones(out_tLK.shape[:2], np.float32)
            case ScoreKind.SOFTMAX_LOGITS if max(-lowest, highest) <= _SAFE_LOGIT:
                np.exp(values_tLK, out=out_tLK)
            case ScoreKind.SOFTMAX_LOGITS:
                np.subtract(values_tLK, values_tLK.max(axis=-1, keepdims=True), out=out_tLK)
                np.exp(out_tLK, out=out_tLK)
            case ScoreKind.SIGMOID_LOGITS:
                _scaled_sigmoid(values_tLK, out_tLK)
            case ScoreKind.SIGMOID:
                np.copyto(out_tLK, values_tLK)
        sums_tL = np.einsum("tlk->tl", out_tLK)  # a third of the time that sum(axis=-1) takes for short rows
        return out_tLK, np.reciprocal(sums_tL, out=sums_tL)


def _as_float32(scores: NDArray[np.generic], room: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scores' values: themselves where they are float32, else written to `room`."""
    if scores.dtype == np.float32:
        return scores.view(np.float32)
    if scores.dtype == np.uint16:  # the upper half of a float32
        np.left_shift(scores, np.uint32(16), out=room.view(np.uint32), dtype=np.uint32)
    else:
        np.copyto(room, scores)
    return room


def _scaled_sigmoid(values: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Sigmoids, of each row (last axis) times a factor that keeps its largest from underflowing."""
    ones_more = np.exp(-np.abs(values))
    ones_more += 1
    # sigmoid(x) = e^min(x, 0) / (1 + e^-|x|)
    np.minimum(values, 0, out=out)
    out -= out.max(axis=-1, keepdims=True)
    np.exp(out, out=out)
    out /= ones_more


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return _normalized(np.exp(values - values.max(axis=-1, keepdims=True)))


def _normalized(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(values / values.sum(axis=-1, keepdims=True))
