"""Expert pathways (paper §4.1): which experts carry most of a sample's routing, layer after layer.

A pathway is a Python string with one code point per expert index and `chr(K)` between layers: bytes, which
RapidFuzz compares fastest, while K < 256.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

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

    def first(self, most: int) -> RankedExperts:
        """The same of at most so many experts."""
        return RankedExperts(self.order_NLM[..., :most], self.cumulative_NLM[..., :most], self.experts)


def rank_experts(weights_NLK: Floats, most: float = math.inf) -> RankedExperts:
    """Sort each layer's experts by falling routing weight, none of them negative.

    Where the first half of the experts has more than `most` everywhere, the others are left out: for
    thresholds up to it.
    """
    experts = weights_NLK.shape[-1]
    first = _sorted(weights_NLK) if weights_NLK.dtype.itemsize > 4 else _sorted_as_integers(weights_NLK)
    for taken in ((experts + 1) // 2, experts):
        order_NLM, sorted_NLM = first(taken)
        cumulative_NLM = sorted_NLM.astype(np.float64)
        np.cumsum(cumulative_NLM, axis=-1, out=cumulative_NLM)
        if cumulative_NLM[..., -1].min(initial=math.inf) > most:
            break
    return RankedExperts(order_NLM, cumulative_NLM, experts)


_First: TypeAlias = Callable[[int], tuple[Ints, Floats]]
"""Indices and weights of the first so many experts by falling weight; equal weights: lower index first."""


def _sorted(weights_NLK: Floats) -> _First:
    order_NLK = np.argsort(-weights_NLK, axis=-1, kind="stable")
    sorted_NLK = np.take_along_axis(weights_NLK, order_NLK, axis=-1)
    return lambda taken: (order_NLK[..., :taken], sorted_NLK[..., :taken])


def _sorted_as_integers(weights_NLK: Floats) -> _First:
    """The same of float32 or less.

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
        return lambda taken: (
            bits_NLK[..., :taken] & room,
            np.invert(bits_NLK[..., :taken] | room).view(np.float32),
        )
    halves_NLKH = np.empty((*weights_NLK.shape, 2), dtype="<u4")
    halves_NLKH[..., 0] = np.arange(experts)
    halves_NLKH[..., 1] = bits_NLK
    halves_NLKH.view("<u8")[..., 0].sort(axis=-1)
    return lambda taken: (
        halves_NLKH[..., :taken, 0],
        np.invert(halves_NLKH[..., :taken, 1]).view(np.float32),
    )


def pathways_at(weights_NLK: Floats, thresholds: Sequence[float]) -> list[list[str]]:
    """The pathways of n >= 1 samples at each threshold, from one ranking that never stands as a whole."""
    found: dict[float, list[str]] = {threshold: [] for threshold in sorted(thresholds, reverse=True)}
    for some_NLK in sample_blocks(weights_NLK):
        ranked = rank_experts(some_NLK, max(thresholds))
        for threshold, pathways_N in found.items():
            chosen_NL = _chosen(ranked, threshold)
            pathways_N += _written(ranked, chosen_NL)
            # Lower thresholds need no more.
            ranked = ranked.first(int(chosen_NL.max(initial=1)))
    return [found[threshold] for threshold in thresholds]


def pathways(ranked: RankedExperts, threshold: float) -> list[str]:
    """Pathway of each sample in the `expert` form (paper §4.1).

    Per layer the shortest prefix of experts whose cumulative weight exceeds `threshold` strictly; all experts
    where none does.
    """
    return _written(ranked, _chosen(ranked, threshold))


def _chosen(ranked: RankedExperts, threshold: float) -> NDArray[np.intp]:
    """How many experts of each sample and layer make the pathway [N, L]."""
    over_NLM = ranked.cumulative_NLM > threshold
    return np.where(over_NLM[..., -1], over_NLM.argmax(axis=-1) + 1, ranked.experts)


def _written(ranked: RankedExperts, chosen_NL: NDArray[np.intp]) -> list[str]:
    """The first so many experts of each layer, as one string for each sample."""
    (n, layers, _), experts = ranked.order_NLM.shape, ranked.experts
    most = int(chosen_NL.max(initial=0))
    symbol_type, encoding = _symbols(experts)
    symbols_NLS = np.empty((n, layers, most + 1), dtype=symbol_type)
    symbols_NLS[..., :most] = ranked.order_NLM[..., :most]
    np.put_along_axis(symbols_NLS, chosen_NL[..., None], experts, axis=-1)
    # The last layer has no separator after it.
    kept_NL = chosen_NL + (np.arange(layers) < layers - 1)
    # The smaller the type, the more are compared at once.
    count_type = np.min_scalar_type(most + 1)
    kept_NLS = np.arange(most + 1, dtype=count_type) < kept_NL[..., None].astype(count_type)
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
