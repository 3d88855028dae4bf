"""Ratios of step times, freed from the drift of the machine, with their uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bench.overhead.order import BASELINE

Floats: TypeAlias = NDArray[np.float64]
Statistic: TypeAlias = Callable[[Floats], float]

RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Step times of one block."""

    variant: str
    seconds_S: Floats
    """By the clock on the wall."""
    cpu_S: Floats
    """Of the main thread, whatever else the machine does."""
    observed_S: NDArray[np.bool_]
    """In which of the steps the variant took something in."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A statistic of step times over the same of the baseline's: 1 = no difference, lower is better."""

    value: float
    low: float
    high: float
    """Bootstrap interval, resampling whole blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relative:
    """Step times of one variant, each relative to the baseline's around it; one array per block."""

    times: list[Floats]
    observed: list[NDArray[np.bool_]]

    def of(self, *, observed: bool) -> list[Floats]:
        """The steps in which something was taken in, or the others."""
        return [
            times_S[seen_S == observed] for times_S, seen_S in zip(self.times, self.observed, strict=True)
        ]


def relative(
    run: Sequence[Block], times: Callable[[Block], Floats] = attrgetter("seconds_S")
) -> dict[str, Relative]:
    """Step times by variant, each divided by what a step took in the baseline's blocks next to its own.

    That is the mean of the medians of the baseline's nearest blocks before and after; for a block of the
    baseline itself, of those other than it.
    """
    medians = {index: float(np.median(times(b))) for index, b in enumerate(run) if b.variant == BASELINE}
    result: dict[str, Relative] = {}
    for index, block in enumerate(run):
        before = max((i for i in medians if i < index), default=None)
        after = min((i for i in medians if i > index), default=None)
        around = [medians[i] for i in (before, after) if i is not None]
        if not around:
            continue
        mine = result.setdefault(block.variant, Relative(times=[], observed=[]))
        mine.times.append(times(block) / np.mean(around))
        mine.observed.append(block.observed_S)
    return result


def median(times: Floats) -> float:
    """The middle step."""
    return float(np.median(times))


def p99(times: Floats) -> float:
    """The slowest of a hundred."""
    return float(np.quantile(times, 0.99))


def mean(times: Floats) -> float:
    """All time over all steps."""
    return float(np.mean(times))


def ratio(variant: Sequence[Floats], baseline: Sequence[Floats], statistic: Statistic) -> Ratio:
    """A statistic of the variant's steps over the baseline's. Both as blocks, which are what is resampled.

    Raises:
        ValueError: one of them has no steps.
    """
    return _bootstrapped([_filled("variant", variant), _filled("baseline", baseline)], [statistic] * 2, _over)


def amortized(variant: Relative, baseline: Relative) -> Ratio:
    """The median step of each kind, observed or not, weighted by how many there were, over the baseline's.

    What is lost in the long run, without the outliers that a mean is at the mercy of.
    """
    kinds = [variant.of(observed=False), variant.of(observed=True)]
    counts = [sum(len(times) for times in kind) for kind in kinds]
    weights = [count / sum(counts) for count in counts if count]
    present = [_filled("variant", kind) for kind, count in zip(kinds, counts, strict=True) if count]

    def combine(values: Sequence[float]) -> float:
        *of_kinds, of_baseline = values
        return sum(w * value for w, value in zip(weights, of_kinds, strict=True)) / of_baseline

    blocks = [*present, _filled("baseline", baseline.times)]
    return _bootstrapped(blocks, [median] * len(blocks), combine)


def _over(values: Sequence[float]) -> float:
    return values[0] / values[1]


def _filled(name: str, blocks: Sequence[Floats]) -> list[Floats]:
    filled = [times for times in blocks if len(times)]
    if not filled:
        raise ValueError(f"no steps of the {name}")
    return filled


def _bootstrapped(
    samples: Sequence[Sequence[Floats]],
    statistics: Sequence[Statistic],
    combine: Callable[[Sequence[float]], float],
) -> Ratio:
    """`combine` of each sample's statistic, with its interval over resampled blocks."""
    rng = np.random.default_rng(0)
    value = combine([statistic(np.concatenate(s)) for s, statistic in zip(samples, statistics, strict=True)])
    resampled = [
        combine(
            [
                statistic(np.concatenate([blocks[i] for i in rng.integers(len(blocks), size=len(blocks))]))
                for blocks, statistic in zip(samples, statistics, strict=True)
            ]
        )
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Ratio(value, float(low), float(high))
