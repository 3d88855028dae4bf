"""Expert pathways (paper §4.1): which experts carry most of a sample's routing, layer after layer.

A pathway is a Python string with one code point per expert index and `chr(K)` between layers: bytes, which
RapidFuzz compares fastest, while K < 256.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.metrics.arrays import Floats, Ints, sample_blocks


@dataclass(frozen=True, slots=True)
class RankedExperts:
    """Experts of each sample and layer by falling routing weight; all thresholds share this sort."""

    order_NLM: Ints
    """Indices of the first M experts; equal weights: lower index first."""
    cumulative_NLM: NDArray[np.float64]
    """Cumulative routing weight in that order."""
    experts: int
    """K."""


def rank_experts(weights_NLK: Floats, most: float = math.inf) -> RankedExperts:
    """Sort each layer's experts by falling routing weight, none of them negative.

    Where the first half of the experts has more than `most` everywhere, the others are left out: for
    thresholds up to it.
    """
    experts = weights_NLK.shape[-1]
    if weights_NLK.dtype.itemsize > 4:
        order_NLK: Ints = np.argsort(-weights_NLK, axis=-1, kind="stable")
        sorted_NLK = np.take_along_axis(weights_NLK, order_NLK, axis=-1)
    else:
        # The bits of floats that are not negative rise with their values (adding 0 makes 0 of -0).
        # Integers of weight and index are sorted several times as fast as indices by a stable argsort.
        weights_NLK = weights_NLK.astype(np.float32, copy=False) + np.float32(0)
        halves_NLKH = np.empty((*weights_NLK.shape, 2), dtype="<u4")
        halves_NLKH[..., 0] = np.arange(experts)
        np.invert(weights_NLK.view(np.uint32), out=halves_NLKH[..., 1])
        halves_NLKH.view("<u8")[..., 0].sort(axis=-1)
        order_NLK = halves_NLKH[..., 0]
        sorted_NLK = np.invert(halves_NLKH[..., 1]).view(np.float32)
    half = (experts + 1) // 2
    cumulative_NLM = np.cumsum(sorted_NLK[..., :half], axis=-1, dtype=np.float64)
    if cumulative_NLM[..., -1].min(initial=math.inf) > most:
        return RankedExperts(order_NLK[..., :half], cumulative_NLM, experts)
    return RankedExperts(order_NLK, np.cumsum(sorted_NLK, axis=-1, dtype=np.float64), experts)


def pathways_at(weights_NLK: Floats, thresholds: Sequence[float]) -> list[list[str]]:
    """The pathways of n >= 1 samples at each threshold, from one ranking that never stands as a whole."""
    found: list[list[str]] = [[] for _ in thresholds]
    for some_NLK in sample_blocks(weights_NLK):
        ranked = rank_experts(some_NLK, max(thresholds))
        for threshold, pathways_N in zip(thresholds, found, strict=True):
            pathways_N += pathways(ranked, threshold)
    return found


def pathways(ranked: RankedExperts, threshold: float) -> list[str]:
    """Pathway of each sample in the `expert` form (paper §4.1).

    Per layer the shortest prefix of experts whose cumulative weight exceeds `threshold` strictly; all experts
    where none does.
    """
    (n, layers, _), experts = ranked.order_NLM.shape, ranked.experts
    below_NL = (ranked.cumulative_NLM <= threshold).sum(axis=-1, dtype=np.uint32)
    chosen_NL = np.minimum(below_NL + 1, experts)
    most = int(chosen_NL.max(initial=0))
    symbol_type, encoding = (np.uint8, "latin-1") if experts < 256 else (np.uint32, "utf-32-le")
    symbols_NLS = np.empty((n, layers, most + 1), dtype=np.dtype(symbol_type).newbyteorder("<"))
    symbols_NLS[..., :most] = ranked.order_NLM[..., :most]
    np.put_along_axis(symbols_NLS, chosen_NL[..., None], experts, axis=-1)
    # The last layer has no separator after it.
    kept_NL = chosen_NL + (np.arange(layers) < layers - 1)
    kept_NLS = np.arange(most + 1) < kept_NL[..., None]
    # surrogatepass: an expert index may be any integer, also one that Unicode reserves.
    joined = symbols_NLS[kept_NLS].tobytes().decode(encoding, "surrogatepass")
    ends_N = np.cumsum(kept_NL.sum(axis=-1)).tolist()
    return [joined[start:end] for start, end in zip([0, *ends_N], ends_N, strict=False)]


def layer_pathways(pathways_N: Sequence[str], experts: int) -> list[tuple[str, ...]]:
    """Pathways cut at the separators (Fig. 5): for each of the L layers, the n samples' sequences."""
    return list(zip(*(pathway.split(chr(experts)) for pathway in pathways_N), strict=True))


def literal(pathway: str, experts: int) -> str:
    """A pathway in the `char` form, the paper's literal string: `3,1,5-…-9,1`."""
    return "-".join(",".join(str(ord(expert)) for expert in layer) for layer in pathway.split(chr(experts)))
