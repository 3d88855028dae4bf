"""Bootstrap of routing statistics over samples, with the same resamples at every step.

A resample weight depends on the sample's id alone, so that a sample weighs the same in every window it
appears in: differences between steps of one resample are then paired, and a fixed probe's own make-up
drops out of their standard error. Weights are exponential (Bayesian bootstrap, Rubin 1981), which, unlike
counts, leave no resample without pairs. What is particular to single pairs is overstated, by up to √3 (their
weights are products): errors are on the safe side. Resample 0 is the plain estimate: all weights one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
    positions_ND: NDArray[np.float64], targets_N: NDArray[np.int32], weights_BN: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Log of target affinity per resample [B]: lower = same-target samples are routed more alike.

    Mean squared distance of the pairs with one target (>= 0) over that of all pairs (docs/metrics.md), a pair
    weighing the product of its samples' weights. NaN where no two samples share a target or all are alike.
    """
    centred_ND = positions_ND - positions_ND.mean(axis=0)
    every_B, every_weight_B = _pair_sums(centred_ND, weights_BN)
    same_B, same_weight_B = np.zeros_like(every_B), np.zeros_like(every_B)
    order_N = np.argsort(targets_N, kind="stable")
    order_N = order_N[targets_N[order_N] >= 0]
    for members in np.split(order_N, np.flatnonzero(np.diff(targets_N[order_N])) + 1):
        if len(members) > 1:
            sums_B, pair_weight_B = _pair_sums(centred_ND[members], weights_BN[:, members])
            same_B += sums_B
            same_weight_B += pair_weight_B
    with np.errstate(divide="ignore", invalid="ignore"):
        affinity_B = (same_B / same_weight_B) / (every_B / every_weight_B)
    # Same-target samples routed exactly alike have affinity 0; its log is held finite.
    return np.log(np.maximum(affinity_B, 1e-12))


def log_effective_dimension(
    weights_NLK: NDArray[np.float64], ridge: float, weights_BN: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Log of Tr(H (H + λI)⁻¹) (paper §4.4) per resample [B]; resamples to first order.

    The trace is smooth in the sample weights, so one inverse and each sample's influence on it give
    the same spread as 32 decompositions at a thirtieth of the cost.
    """
    samples, layers, _ = weights_NLK.shape
    flat_ND = weights_NLK.reshape(samples, -1)
    width = flat_ND.shape[1]
    if width <= samples:
        moment_DD = flat_ND.T @ flat_ND / (samples * layers)
        inverse_DD = np.linalg.inv(moment_DD + ridge * np.eye(width))
        dimension = width - ridge * float(np.trace(inverse_DD))
        influence_N = ridge / layers * np.square(flat_ND @ inverse_DD).sum(axis=1)
    else:
        gram_NN = flat_ND @ flat_ND.T / (samples * layers)
        inverse_NN = np.linalg.inv(gram_NN + ridge * np.eye(samples))
        dimension = samples - ridge * float(np.trace(inverse_NN))
        influence_N = ridge * samples * (np.diag(inverse_NN) - ridge * np.square(inverse_NN).sum(axis=1))
    shares_BN = weights_BN / weights_BN.sum(axis=1, keepdims=True)
    change_B = (shares_BN - 1 / samples) @ influence_N
    logs_B: NDArray[np.float64] = np.log(dimension) + change_B / dimension
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


def _pair_sums(
    positions_ND: NDArray[np.float64], weights_BN: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Twice Σ_{i<j} w_i w_j |x_i − x_j|² and twice Σ_{i<j} w_i w_j, without forming pairs."""
    total_B = weights_BN.sum(axis=1)
    squares_B = weights_BN @ np.square(positions_ND).sum(axis=1)
    centre_BD = weights_BN @ positions_ND
    distances_B = 2 * (total_B * squares_B - np.square(centre_BD).sum(axis=1))
    return distances_B, np.square(total_B) - np.square(weights_BN).sum(axis=1)


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
