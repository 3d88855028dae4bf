"""Which pairs of samples are compared when there are too many for all.

A balanced design: every sample takes part in (nearly) as many pairs as every other, so that how unusual
single samples are cancels from the error of the sampled mean and only what is particular to a pair remains.
Choices depend on nothing but the sample counts: the same window gives the same numbers bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_SEED = 2506_21551

PairIndices: TypeAlias = tuple[NDArray[np.intp], NDArray[np.intp]]
"""First and second sample of each pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairBudget:
    """How many pairs a mean over pairs may cost."""

    min_pairs: int = 1024
    """Sampled at least."""
    max_pairs: int = 8192
    """Compared at most; when there are no more pairs than this, all are."""
    target_stderr: float = 0.005
    """Wanted error that sampling adds, relative to the mean."""

    def shared(self, means: int) -> PairBudget:
        """The budget for each of several means that are averaged."""
        return PairBudget(
            min_pairs=math.ceil(self.min_pairs / means),
            max_pairs=math.ceil(self.max_pairs / means),
            target_stderr=self.target_stderr * math.sqrt(means),
        )


def within_pairs(n: int) -> Iterator[PairIndices]:
    """Blocks of n unordered pairs of n samples; each sample in two pairs of each block; no pair twice."""
    generator = np.random.default_rng([_SEED, n])
    around_N = generator.permutation(n)
    # The shift n/2 would name each of its pairs twice.
    for shift in generator.permutation(np.arange(1, (n + 1) // 2)):
        yield around_N, np.roll(around_N, -shift)


def cross_pairs(n: int, m: int) -> Iterator[PairIndices]:
    """Blocks of at most 128 pairs of one of n and one of m samples; no pair twice."""
    generator = np.random.default_rng([_SEED, n, m])
    first_N, second_M = generator.permutation(n), generator.permutation(m)
    turn = np.arange(max(n, m))
    for shift in generator.permutation(min(n, m)):
        shift_first, shift_second = (0, shift) if n >= m else (shift, 0)
        for start in range(0, len(turn), 128):
            block = turn[start : start + 128]
            yield first_N[(block + shift_first) % n], second_M[(block + shift_second) % m]


def sample_pairs(
    blocks: Iterator[PairIndices], measure: Callable[[PairIndices], NDArray[np.float64]], budget: PairBudget
) -> tuple[PairIndices, NDArray[np.float64]]:
    """Measure blocks of pairs until the mean is as certain as the budget wants, or the budget is spent.

    `measure` gives [P, V] values of P pairs, of which the first decides. The spread of all pairs stands for
    what is particular to a pair (see the module) and is never less: the budget errs towards too many pairs.
    """
    firsts: list[NDArray[np.intp]] = []
    seconds: list[NDArray[np.intp]] = []
    measured: list[NDArray[np.float64]] = []
    pairs, wanted = 0, float(budget.min_pairs)
    for first, second in blocks:
        left = budget.max_pairs - pairs
        firsts.append(first[:left])
        seconds.append(second[:left])
        measured.append(measure((firsts[-1], seconds[-1])))
        pairs += len(firsts[-1])
        if pairs >= wanted:
            values = np.concatenate(measured)[:, 0]
            mean = values.mean()
            spread = values.std() / mean if mean > 0 else math.inf
            wanted = min(budget.max_pairs, max(budget.min_pairs, (spread / budget.target_stderr) ** 2))
            if pairs >= wanted:
                break
    return (np.concatenate(firsts), np.concatenate(seconds)), np.concatenate(measured)
