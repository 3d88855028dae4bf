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

_FIRST_SURROGATE = 0xD800
"""From here on two code units of UTF-16 may be read as one symbol."""


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
        order_NLK, sorted_NLK = _sorted_as_integers(weights_NLK)
    half = (experts + 1) // 2
    cumulative_NLM = np.cumsum(sorted_NLK[..., :half], axis=-1, dtype=np.float64)
    if cumulative_NLM[..., -1].min(initial=math.inf) > most:
        return RankedExperts(order_NLK[..., :half], cumulative_NLM, experts)
    return RankedExperts(order_NLK, np.cumsum(sorted_NLK, axis=-1, dtype=np.float64), experts)


def _sorted_as_integers(weights_NLK: Floats) -> tuple[Ints, NDArray[np.float32]]:
    """Indices and weights by falling weight of float32 or less; equal weights: lower index first.

    The bits of floats that are not negative rise with their values. Integers of weight and index are sorted
    several times as fast as indices by a stable argsort; half as large ones, where weights that came as fp16
    or bfloat16 leave room for the index, twice as fast again.
    """
    experts = weights_NLK.shape[-1]
    # Adding 0 makes 0 of -0.
    bits_NLK = np.invert((weights_NLK.astype(np.float32, copy=False) + np.float32(0)).view(np.uint32))
    room = np.uint32((1 << max(0, experts - 1).bit_length()) - 1)
    if int(np.bitwise_and.reduce(bits_NLK, axis=None)) & room == room:
        bits_NLK ^= room - np.arange(experts, dtype=np.uint32)
        bits_NLK.sort(axis=-1)
        return bits_NLK & room, np.invert(bits_NLK | room).view(np.float32)
    halves_NLKH = np.empty((*weights_NLK.shape, 2), dtype="<u4")
    halves_NLKH[..., 0] = np.arange(experts)
    halves_NLKH[..., 1] = bits_NLK
    halves_NLKH.view("<u8")[..., 0].sort(axis=-1)
    return halves_NLKH[..., 0], np.invert(halves_NLKH[..., 1]).view(np.float32)


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
    over_NLM = ranked.cumulative_NLM > threshold
    chosen_NL = np.where(over_NLM[..., -1], over_NLM.argmax(axis=-1) + 1, experts)
    most = int(chosen_NL.max(initial=0))
    symbol_type, encoding = _symbols(experts)
    symbols_NLS = np.empty((n, layers, most + 1), dtype=symbol_type)
    symbols_NLS[..., :most] = ranked.order_NLM[..., :most]
    np.put_along_axis(symbols_NLS, chosen_NL[..., None], experts, axis=-1)
    # The last layer has no separator after it.
    kept_NL = chosen_NL + (np.arange(layers) < layers - 1)
    kept_NLS = np.arange(most + 1, dtype=np.uint32) < kept_NL[..., None].astype(np.uint32)
    # surrogatepass: an expert index may be any integer, also one that Unicode reserves.
    joined = symbols_NLS[kept_NLS].tobytes().decode(encoding, "surrogatepass")
    ends_N = np.cumsum(kept_NL.sum(axis=-1)).tolist()
    return [joined[start:end] for start, end in zip([0, *ends_N], ends_N, strict=False)]


def _symbols(experts: int) -> tuple[str, str]:
    """The smallest type that holds an expert's index and the separator, and how Python calls such text."""
    if experts < 1 << 8:
        return "u1", "latin-1"
    return ("<u2", "utf-16-le") if experts < _FIRST_SURROGATE else ("<u4", "utf-32-le")


def layer_pathways(pathways_N: Sequence[str], experts: int) -> list[tuple[str, ...]]:
    """Pathways cut at the separators (Fig. 5): for each of the L layers, the n samples' sequences."""
    return list(zip(*(pathway.split(chr(experts)) for pathway in pathways_N), strict=True))


def literal(pathway: str, experts: int) -> str:
    """A pathway in the `char` form, the paper's literal string: `3,1,5-…-9,1`."""
    return "-".join(",".join(str(ord(expert)) for expert in layer) for layer in pathway.split(chr(experts)))
