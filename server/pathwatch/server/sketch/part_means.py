"""Means of whole samples from their token parts: Σ tokens·mean / Σ tokens in float64, parts ascending.

A sample of one part keeps its values to the bit: it weighs 1, whatever its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.sketch.token_part import TokenPart


def tokens_held(part: TokenPart, rows_N: NDArray[np.intp]) -> NDArray[np.int64]:
    """Real tokens of each sample in this part; 0 where the part has not come."""
    return np.where(part.present_SL[rows_N].any(axis=1), part.tokens_S[rows_N], 0)


def target_tokens_held(part: TokenPart, rows_N: NDArray[np.intp]) -> NDArray[np.int64]:
    """Target tokens of each sample in this part; 0 where the part has not come."""
    return np.where(part.present_SL[rows_N].any(axis=1), part.target_tokens_S[rows_N], 0)


def mean_weights(
    parts: Sequence[TokenPart], rows_N: NDArray[np.intp], single_N: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """[N, L, K] routing weights over real tokens, and over target tokens (None where no sample has others).

    `single_N` marks samples of one part. A sample without target tokens gets its weights for both.
    """
    weights_NLK = _weighted_mean(
        [part.weights_SLK[rows_N] for part in parts],
        [np.where(single_N, part.present_SL[rows_N, 0], tokens_held(part, rows_N)) for part in parts],
    )
    if not any(part.target_present_SL[rows_N].any() for part in parts):
        return weights_NLK, None
    counts = [
        np.where(single_N, part.present_SL[rows_N, 0], target_tokens_held(part, rows_N)) for part in parts
    ]
    target_weights_NLK = _weighted_mean([part.effective_target_weights(rows_N) for part in parts], counts)
    without_N = np.sum(counts, axis=0) == 0
    return weights_NLK, np.where(without_N[:, None, None], weights_NLK, target_weights_NLK)


def mean_losses(
    parts: Sequence[TokenPart], rows_N: NDArray[np.intp], single_N: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Mean loss over target tokens; NaN where a part with target tokens brought no loss."""
    if len(parts) == 1:
        return parts[0].losses_S[rows_N]
    total_N = np.zeros(len(rows_N))
    count_N = np.zeros(len(rows_N), np.int64)
    for part in parts:
        held_N = np.where(single_N, part.present_SL[rows_N, 0], target_tokens_held(part, rows_N))
        total_N += np.where(held_N > 0, part.losses_S[rows_N], 0.0) * held_N
        count_N += held_N
    means_N = np.full(len(rows_N), np.nan)
    np.divide(total_N, count_N, out=means_N, where=count_N > 0)
    return means_N


def shared_targets(
    parts: Sequence[TokenPart], rows_N: NDArray[np.intp], single_N: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """The target on which all parts with target tokens agree; −1 where they do not, or one has none."""
    lowest_N = np.full(len(rows_N), np.iinfo(np.int32).max, np.int32)
    highest_N = np.full(len(rows_N), -1, np.int32)
    for part in parts:
        held_N = np.where(single_N, part.present_SL[rows_N, 0], target_tokens_held(part, rows_N)) > 0
        targets_N = part.targets_S[rows_N]
        lowest_N = np.where(held_N, np.minimum(lowest_N, targets_N), lowest_N)
        highest_N = np.where(held_N, np.maximum(highest_N, targets_N), highest_N)
    return np.where(lowest_N == highest_N, highest_N, np.int32(-1))


def _weighted_mean(
    values: Sequence[NDArray[np.float32]], counts: Sequence[NDArray[np.int64]]
) -> NDArray[np.float32]:
    """[N, L, K] Σ count·value / Σ count in float64, in the order given; 0 where no count is positive."""
    if len(values) == 1:
        return values[0]
    total_NLK = np.zeros(values[0].shape)
    for value_NLK, count_N in zip(values, counts, strict=True):
        total_NLK += value_NLK * count_N[:, None, None].astype(np.float64)
    count_N = np.maximum(np.sum(counts, axis=0), 1)
    mean_NLK: NDArray[np.float32] = (total_NLK / count_N[:, None, None]).astype(np.float32)
    return mean_NLK
