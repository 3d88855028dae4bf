"""Effective dimension (paper §4.4): how many directions a group's routing takes; lower = more shared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.metrics.arrays import Floats


def effective_dimension(weights_NLK: Floats, ridge: float) -> float:
    """Tr(H (H + λI)⁻¹) with H_ij = 1/(n·L) Σ_l Σ_k g_lk(x_i) g_lk(x_j), n >= 1, λ = `ridge` > 0 (§4.4)."""
    return float(effective_dimensions(weights_NLK, [ridge])[0])


def effective_dimensions(weights_NLK: Floats, ridges_A: Sequence[float]) -> NDArray[np.float64]:
    """The effective dimension [A] for each of A values of λ > 0, from one decomposition.

    H [N, N] and the [L·K, L·K] product of the same weights have the same eigenvalues above 0; the smaller
    of the two is decomposed.
    """
    n, layers, experts = weights_NLK.shape
    rows = weights_NLK.reshape(n, layers * experts).astype(np.float64)
    side = rows if n <= layers * experts else rows.T
    eigenvalues = np.maximum(np.linalg.eigvalsh(side @ side.T / (n * layers)), 0.0)
    ridges = np.asarray(ridges_A, dtype=np.float64)[:, None]
    dimensions_A: NDArray[np.float64] = (eigenvalues / (eigenvalues + ridges)).sum(axis=1)
    return dimensions_A
