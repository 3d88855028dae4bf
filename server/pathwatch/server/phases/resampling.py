"""Bootstrap of routing statistics over samples, with the same resamples at every step.

A resample weight depends on the sample's id alone, so that a sample weighs the same in every window it
appears in: differences between steps of one resample are then paired, and a fixed probe's own make-up
drops out of their standard error. Weights are exponential (Bayesian bootstrap, Rubin 1981), which, unlike
counts, leave no resample without pairs. What is particular to single pairs is overstated, by up to √3 (their
weights are products): errors are on the safe side. Resample 0 is the plain estimate: all weights one.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.metrics.arrays import Floats
from pathwatch.server.metrics.dimension import EffectiveDimension

RESAMPLES = 32
"""Resamples beside the plain estimate; a standard error from 32 is itself good to an eighth."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def resample_weights(sample_ids_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights [1 + RESAMPLES, N]: row 0 is ones, the others standard exponential variates of the id."""
    ids_N = _mixed(sample_ids_N.astype(np.uint64) + _GOLDEN)
    streams_B = np.arange(1, RESAMPLES + 1, dtype=np.uint64) * _GOLDEN
    bits_BN = _mixed(ids_N[None, :] ^ streams_B[:, None])
    uniform_BN = ((bits_BN >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return np.vstack([np.ones(len(sample_ids_N)), -np.log(uniform_BN)])


def log_affinity(
    positions: Iterable[Floats], targets_N: NDArray[np.int32], weights_BN: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Log of target affinity per resample [B]: lower = same-target samples are routed more alike.

    Mean squared distance of the pairs with one target (>= 0) over that of all pairs (docs/metrics.md), a pair
    weighing the product of its samples' weights. NaN where no two samples share a target or all are alike.
    `positions` [N, D] come some dimensions at a time: squared distances add up. Sums are in float64.
    """
    order_N, others, kinds = _by_target(targets_N)
    weights_BN = weights_BN[:, order_N]
    every_B, same_B = np.zeros(len(weights_BN)), np.zeros(len(weights_BN))
    for some_ND in positions:
        moved_ND = some_ND[order_N]
        moved_ND -= moved_ND.mean(axis=0, dtype=np.float64).astype(moved_ND.dtype)  # no distance changes
        moved_ND = moved_ND.astype(np.float64, copy=False)
        squares_N = np.vecdot(moved_ND, moved_ND)
        centre_BD = weights_BN[:, others] @ moved_ND[others]
        for members in kinds:
            weights_BM = weights_BN[:, members]
            own_BD = weights_BM @ moved_ND[members]
            same_B += _distances(own_BD, squares_N[members], weights_BM)
            centre_BD += own_BD
        every_B += _distances(centre_BD, squares_N, weights_BN)
    every_weight_B = _pair_weights(weights_BN)
    same_weight_B = sum((_pair_weights(weights_BN[:, members]) for members in kinds), np.zeros(1))
    with np.errstate(divide="ignore", invalid="ignore"):
        affinity_B = (same_B / same_weight_B) / (every_B / every_weight_B)
    # Same-target samples routed exactly alike have affinity 0; its log is held finite.
    return np.log(np.maximum(affinity_B, 1e-12))


def log_effective_dimension(
    dimension: EffectiveDimension, weights_BN: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Log of the effective dimension (paper §4.4) per resample [B]; resamples to first order.

    It is smooth in the sample weights, so each sample's influence on it gives the same spread as 32
    decompositions at a thirtieth of the cost.
    """
    shares_BN = weights_BN / weights_BN.sum(axis=1, keepdims=True)
    change_B = (shares_BN - 1 / weights_BN.shape[1]) @ dimension.influence_N
    logs_B: NDArray[np.float64] = np.log(dimension.value) + change_B / dimension.value
    return logs_B


def log_pair_mean(
    values_P: NDArray[np.float64],
    first_P: NDArray[np.intp],
    second_P: NDArray[np.intp],
    weights_BN: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Log of the mean of P pairs' values per resample [B]; a pair weighs the product of its samples."""
    pair_weights_BP = weights_BN[:, first_P] * weights_BN[:, second_P]
    means_B = pair_weights_BP @ values_P / pair_weights_BP.sum(axis=1)
    logs_B: NDArray[np.float64] = np.log(np.maximum(means_B, 1e-12))
    return logs_B


def _by_target(targets_N: NDArray[np.int32]) -> tuple[NDArray[np.intp], slice, list[slice]]:
    """An order of samples; where in it those are whose target no other has, and each shared target's."""
    _, kinds_N, counts = np.unique(targets_N, return_inverse=True, return_counts=True)
    kinds_N[(targets_N < 0) | (counts[kinds_N] < 2)] = -1
    order_N = np.argsort(kinds_N, kind="stable")
    _, starts = np.unique(kinds_N[order_N], return_index=True)
    parts = [slice(start, end) for start, end in zip(starts, [*starts[1:], len(order_N)], strict=True)]
    if (kinds_N < 0).any():
        return order_N, parts[0], parts[1:]
    return order_N, slice(0, 0), parts


def _distances(
    centre_BD: NDArray[np.float64], squares_N: NDArray[np.float64], weights_BN: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Twice Σ_{i<j} w_i w_j |x_i − x_j|² [B] without forming pairs, from Σ w_i x_i and |x_i|²."""
    squares_B = weights_BN @ squares_N
    return np.asarray(2 * (weights_BN.sum(axis=1) * squares_B - np.vecdot(centre_BD, centre_BD)))


def _pair_weights(weights_BN: NDArray[np.float64]) -> NDArray[np.float64]:
    """Twice Σ_{i<j} w_i w_j [B]."""
    return np.asarray(np.square(weights_BN.sum(axis=1)) - np.square(weights_BN).sum(axis=1))


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
