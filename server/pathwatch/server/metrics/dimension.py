"""Effective dimension (paper §4.4): how many directions a group's routing takes; lower = more shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.metrics.arrays import Floats, layer_views, precision

_SMALLEST_RIDGE = 1e-8
"""Relative to the trace of H; below it, eigenvalues that rounding left negative must be told from λ."""

GRAM_BYTES = 16 << 20
"""Matrix products want larger blocks than what is done element by element. Of large models (`precision`) the
products within a block are summed in float32, the blocks in float64; all terms are positive, so that the
dimension is good to 1e-6."""
_DIRECT = 64
"""Sides of matrices that are inverted as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveDimension:
    """The effective dimension of n samples and what each of them adds to it."""

    value: float
    influence_N: NDArray[np.float64]
    """Derivative of `value` by a sample's share of the window, the shares summing to one (each 1/n)."""


def effective_dimension(weights_NLK: Floats, ridge: float) -> EffectiveDimension:
    """Tr(H (H + λI)⁻¹) with H_ij = 1/(n·L) Σ_l Σ_k g_lk(x_i) g_lk(x_j), n >= 1, λ = `ridge` > 0 (§4.4).

    One inverse gives it and all influences: Tr(H (H + λI)⁻¹) = n − λ·Tr((H + λI)⁻¹).
    """
    n, layers, experts = weights_NLK.shape
    moment, of_samples = _moment(weights_NLK)
    side = len(moment)
    smallest = _SMALLEST_RIDGE * float(np.trace(moment))
    value = float(_shrunk(moment, [ridge])[0]) if ridge < smallest else None
    moment[np.diag_indices(side)] += max(ridge, smallest)
    inverse = _inverse(moment)
    if value is None:
        value = side - ridge * float(np.trace(inverse))
    if of_samples:
        influence_N = ridge * n * (np.diag(inverse) - ridge * np.square(inverse).sum(axis=1))
    else:
        rows_ND = weights_NLK.reshape(n, layers * experts).astype(np.float64)
        influence_N = ridge / layers * np.square(rows_ND @ inverse).sum(axis=1)
    return EffectiveDimension(value=value, influence_N=influence_N)


def effective_dimensions(weights_NLK: Floats, ridges_A: Sequence[float]) -> NDArray[np.float64]:
    """The effective dimension [A] for each of A values of λ > 0, from one decomposition."""
    return _shrunk(_moment(weights_NLK)[0], ridges_A)


def _moment(weights_NLK: Floats) -> tuple[NDArray[np.float64], bool]:
    """H [N, N], or the [L·K, L·K] product of the same weights, which has the same eigenvalues above 0.

    The smaller of the two; true = H.
    """
    n, layers, experts = weights_NLK.shape
    if n > layers * experts:
        rows_ND = weights_NLK.reshape(n, layers * experts).astype(np.float64)
        return rows_ND.T @ rows_ND / (n * layers), False
    gram_NN = np.zeros((n, n))
    for some_NLK in layer_views(weights_NLK, GRAM_BYTES):
        block_ND = some_NLK.astype(precision(weights_NLK), copy=False).reshape(n, -1)
        gram_NN += block_ND @ block_ND.T
    gram_NN /= n * layers
    return gram_NN, True


def _inverse(definite: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of a symmetric positive definite matrix, by halves (Schur complement).

    Nearly all of it is matrix products, and it knows the symmetry: a quarter of the time of `np.linalg.inv`.
    """
    side = len(definite)
    if side <= _DIRECT:
        return np.asarray(np.linalg.inv(definite), dtype=np.float64)
    half = side // 2
    first = _inverse(definite[:half, :half])
    across = first @ definite[:half, half:]
    last = _inverse(definite[half:, half:] - definite[half:, :half] @ across)
    shared = across @ last
    inverse = np.empty_like(definite)
    inverse[:half, :half] = first + shared @ across.T
    inverse[:half, half:] = -shared
    inverse[half:, :half] = -shared.T
    inverse[half:, half:] = last
    return inverse


def _shrunk(moment: NDArray[np.float64], ridges_A: Sequence[float]) -> NDArray[np.float64]:
    eigenvalues = np.maximum(np.linalg.eigvalsh(moment), 0.0)
    ridges = np.asarray(ridges_A, dtype=np.float64)[:, None]
    dimensions_A: NDArray[np.float64] = (eigenvalues / (eigenvalues + ridges)).sum(axis=1)
    return dimensions_A
