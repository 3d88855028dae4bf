"""Pathway consistency C_i (paper §4.2): how alike the experts of neighbouring layers are for one sample.

Shape letters beside the usual: D width of the model, J = L − 1 pairs of neighbouring layers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.metrics.arrays import Floats, precision
from pathwatch.server.metrics.window import Geometry

_DIRECT = 64
"""Experts whose products with a Gram matrix are not worth halving."""


def grams(router_weights_LKD: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inner products of expert embeddings: W_l·W_lᵀ [L, K, K] and W_l·W_{l+1}ᵀ [L-1, K, K]."""
    weights_LKD = router_weights_LKD.astype(np.float64)
    transposed_LDK = weights_LKD.transpose(0, 2, 1)
    return weights_LKD @ transposed_LDK, weights_LKD[:-1] @ transposed_LDK[1:]


def adjacent_cosines(weights_NLK: Floats, geometry: Geometry) -> NDArray[np.float64]:
    """Cosines c_l = cos(e[l], e[l+1]) [N, L-1] of routing embeddings e[l] = Σ_k g[l,k]·v[l,k] (§4.2).

    Inner products of the expert embeddings v are enough. NaN where an embedding has no length. Of large
    models (`precision`) a cosine is good to 1e-6, which is less than what rounding the weights to fp16 on the
    wire does to it.
    """
    n, layers, _ = weights_NLK.shape
    squares_LN, products_JN = np.empty((layers, n)), np.empty((max(layers - 1, 0), n))
    dtype = precision(weights_NLK)
    before_NK = weights_NLK[:, 0].astype(dtype)
    for layer in range(layers):
        own_NK = weights_NLK[:, layer].astype(dtype)
        squares_LN[layer] = _square(own_NK, geometry.gram_self_LKK[layer].astype(dtype, copy=False))
        if layer:
            gram_KK = geometry.gram_next_LKK[layer - 1].astype(dtype, copy=False)
            products_JN[layer - 1] = np.vecdot(before_NK @ gram_KK, own_NK)
        before_NK = own_NK
    return _cosines(products_JN, squares_LN).T


def adjacent_cosines_from_weights(weights_NLK: Floats, router_weights_LKD: Floats) -> NDArray[np.float64]:
    """The same from the router weights W [L, K, D] themselves."""
    embeddings_LND = weights_NLK.transpose(1, 0, 2).astype(np.float64) @ router_weights_LKD.astype(np.float64)
    squares_LN = (embeddings_LND**2).sum(axis=-1)
    products_JN = (embeddings_LND[:-1] * embeddings_LND[1:]).sum(axis=-1)
    return _cosines(products_JN, squares_LN).T


def path_consistency(cosines_NJ: NDArray[np.float64]) -> NDArray[np.float64]:
    """C_i [N] = 1 − mean_l(c_l) / (max_l c_l + 1e-8), as printed in §4.2: lower = smoother.

    NaN where undefined: one layer only, no positive cosine, or an embedding without length.
    """
    n, neighbours = cosines_NJ.shape
    consistency_N = np.full(n, np.nan)
    if neighbours:
        largest_N = cosines_NJ.max(axis=-1)
        defined_N = largest_N > 0
        means_N = cosines_NJ[defined_N].mean(axis=-1)
        consistency_N[defined_N] = 1 - means_N / (largest_N[defined_N] + 1e-8)
    return consistency_N


def _square(own_NK: Floats, gram_KK: Floats) -> Floats:
    """gᵀGg of each row g, by halves: what is beside the diagonal of G counts twice and is multiplied once."""
    experts = own_NK.shape[1]
    if experts <= _DIRECT:
        return np.asarray(np.vecdot(own_NK @ gram_KK, own_NK))
    half = experts // 2
    first_NK, last_NK = own_NK[:, :half], own_NK[:, half:]
    across_KK = gram_KK[:half, half:] + gram_KK[half:, :half].T
    within_N = _square(first_NK, gram_KK[:half, :half]) + _square(last_NK, gram_KK[half:, half:])
    return np.asarray(within_N + np.vecdot(first_NK @ across_KK, last_NK))


def _cosines(products_JN: NDArray[np.float64], squares_LN: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths_LN = np.sqrt(np.maximum(squares_LN, 0.0))  # Rounding may leave a tiny negative square.
    scale_JN = lengths_LN[:-1] * lengths_LN[1:]
    cosines_JN = np.full_like(products_JN, np.nan)
    np.divide(products_JN, scale_JN, out=cosines_JN, where=scale_JN > 0)
    return cosines_JN
