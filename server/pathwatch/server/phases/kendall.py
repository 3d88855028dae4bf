"""Kendall's rank test for a trend (M. G. Kendall, "A new measure of rank correlation", 1938).

Our own: `scipy.stats` has it, and takes 50 MB of a server that needs nothing else of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_LONGEST_EXACT = 33
"""Values up to which the distribution is counted out; beyond, the normal one is as good."""


@dataclass(frozen=True, slots=True)
class Trend:
    """Whether values tend to fall or to rise with time."""

    balance: int
    """Pairs that rise less pairs that fall."""
    p_value: float
    """Two-sided: how likely a balance so far from 0 is where there is no trend; 1 where all are equal."""


def kendall_trend(values_T: NDArray[np.float64]) -> Trend:
    """Of values in the order of time, T ≥ 2; equal ones count as neither."""
    n = len(values_T)
    earlier, later = np.triu_indices(n, 1)
    rising = int((values_T[later] > values_T[earlier]).sum())
    falling = int((values_T[later] < values_T[earlier]).sum())
    if n <= _LONGEST_EXACT and rising + falling == len(earlier):
        return Trend(rising - falling, _exact(n, min(rising, falling)))
    return Trend(rising - falling, _normal(values_T, rising - falling))


def _exact(n: int, fewer: int) -> float:
    """Twice the share of the orders of n values that have at most `fewer` pairs in the rarer direction."""
    return min(1.0, 2 * sum(_orders(n)[: fewer + 1]) / math.factorial(n))


@lru_cache(maxsize=_LONGEST_EXACT)
def _orders(n: int) -> tuple[int, ...]:
    """Of how many orders of n values 0, 1, … pairs fall."""
    orders = [1]
    for k in range(2, n + 1):
        # The k-th value may be put before 0 … k − 1 of those there are.
        orders = [sum(orders[max(0, pairs - k + 1) : pairs + 1]) for pairs in range(len(orders) + k - 1)]
    return tuple(orders)


def _normal(values_T: NDArray[np.float64], balance: int) -> float:
    """By the variance of the balance, which equal values lessen."""
    n = len(values_T)
    _, equal = np.unique(values_T, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - int((equal * (equal - 1) * (2 * equal + 5)).sum())) / 18
    return math.erfc(abs(balance) / math.sqrt(2 * variance)) if variance else 1.0
