"""Which pairs of samples are compared when there are too many for all.

A balanced design: every sample takes part in (nearly) as many pairs as every other, so that how unusual
single samples are cancels from the error of the sampled mean and only what is particular to a pair remains.
The first half of n samples' n first pairs have no sample in common: while they are fewer, they are
independent draws, and as many samples as can be are behind the spread that is judged by.
Choices depend on nothing but the sample counts: the same window gives the same numbers bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_SEED = 2506_21551
_FEWEST = 8
"""Pairs that each of many means is to rest on."""
_CLOSE = 4
"""A mean this many times as certain as wanted is certain enough, however few pairs it rests on."""

PairIndices: TypeAlias = tuple[NDArray[np.intp], NDArray[np.intp]]
"""First and second sample of each pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairBudget:
    """How many pairs a mean over pairs may cost.

    The longer pathways are, the less single pairs differ and the more each costs: so `min_pairs` are compared
    only where a quarter of the wanted error takes as many.
    """

    first_pairs: int = 128
    """Compared in any case, to see how far pairs differ: fewer would miss rare samples unlike all others."""
    min_pairs: int = 1024
    """Compared where they bring the error down to a quarter of what is wanted; they cost little."""
    max_pairs: int = 8192
    """Compared at most; when there are no more pairs than this, all are."""
    target_stderr: float = 0.005
    """Wanted error that sampling adds, relative to the mean."""

    def shared(self, means: int) -> PairBudget:
        """The budget for each of several means that are averaged."""
        return PairBudget(
            first_pairs=max(_FEWEST, math.ceil(self.first_pairs / means)),
            min_pairs=math.ceil(self.min_pairs / means),
            max_pairs=math.ceil(self.max_pairs / means),
            target_stderr=self.target_stderr * math.sqrt(means),
        )

    def needed(self, spread: float) -> float:
        """Pairs whose mean is as certain as wanted; `spread`: their standard deviation over their mean."""
        if self.target_stderr <= 0:
            return self.max_pairs
        return min((spread / self.target_stderr) ** 2, self.max_pairs)

    def after(self, spread: float) -> PairBudget:
        """The budget where other values of the same samples are known to be that far apart.

        Few pairs are compared first if few are enough for values twice as far apart.
        """
        first_pairs = max(2 * _FEWEST, math.ceil(4 * self.needed(spread)))
        return replace(self, first_pairs=min(first_pairs, self.first_pairs))

    def wanted(self, values_P: NDArray[np.float64]) -> int:
        """Pairs to compare, as far as those compared so far can tell."""
        mean = float(values_P.mean())
        if mean <= 0:
            return self.max_pairs
        needed = self.needed(float(values_P.std()) / mean)
        return min(math.ceil(max(needed, min(self.min_pairs, _CLOSE**2 * needed))), self.max_pairs)


@lru_cache(maxsize=4)
def within_pairs(n: int, most: int) -> PairIndices:
    """At most `most` unordered pairs of n samples, no pair twice.

    Of each n pairs in a row, begun at a multiple of n, each sample is in two; of the first n/2 pairs in one.
    """
    generator = np.random.default_rng([_SEED, n])
    around_N = generator.permutation(n)
    disjoint_first_N = np.concatenate([np.arange(0, n, 2), np.arange(1, n, 2)])
    # The shift n/2 would name each of its pairs twice.
    shifts = np.arange(1, (n + 1) // 2)
    shifts[1:] = generator.permutation(shifts[1:])
    orders = [disjoint_first_N] + [np.arange(n)] * len(shifts[1:])
    blocks = list(zip(shifts, orders, strict=False))[: math.ceil(most / n)]
    firsts = [around_N[order_N] for _, order_N in blocks]
    seconds = [np.roll(around_N, -shift)[order_N] for shift, order_N in blocks]
    return _joined(firsts, most), _joined(seconds, most)


@lru_cache(maxsize=4)
def cross_pairs(n: int, m: int, most: int) -> PairIndices:
    """At most `most` pairs of one of n and one of m samples, no pair twice."""
    generator = np.random.default_rng([_SEED, n, m])
    first_N, second_M = generator.permutation(n), generator.permutation(m)
    turn = np.arange(max(n, m))
    firsts, seconds = [], []
    for shift in generator.permutation(min(n, m))[: math.ceil(most / max(n, m))]:
        shift_first, shift_second = (0, shift) if n >= m else (shift, 0)
        firsts.append(first_N[(turn + shift_first) % n])
        seconds.append(second_M[(turn + shift_second) % m])
    return _joined(firsts, most), _joined(seconds, most)


def sample_pairs(
    pairs: PairIndices, measure: Callable[[PairIndices], NDArray[np.float64]], budget: PairBudget
) -> tuple[PairIndices, NDArray[np.float64]]:
    """Measure pairs in order until the mean is as certain as the budget wants, or the budget is spent.

    `measure` gives [P, V] values of P pairs, of which the first decides. The spread of all pairs stands for
    what is particular to a pair (see the module) and is never less: the budget errs towards too many pairs.
    """
    first, second = pairs
    measured: list[NDArray[np.float64]] = []
    done, wanted = 0, budget.first_pairs
    while done < min(wanted, len(first)):
        measured.append(measure((first[done:wanted], second[done:wanted])))
        done = min(wanted, len(first))
        wanted = budget.wanted(np.concatenate(measured)[:, 0])
    return (first[:done], second[:done]), np.concatenate(measured)


def _joined(parts: list[NDArray[np.intp]], most: int) -> NDArray[np.intp]:
    joined = np.concatenate([*parts, np.zeros(0, dtype=np.intp)])[:most].copy()
    joined.flags.writeable = False  # it is remembered
    return joined
