"""Pearson and Spearman of two series of one run, also with a third one's share removed.

Neighbouring points of a training run resemble each other, so a hundred of them are not a hundred
observations: beside the textbook p-value each coefficient carries one for the number of independent
points that the autocorrelation leaves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

MIN_POINTS: Final = 4
"""Points below which no coefficient is given."""
_STRAIGHT: Final = 1e-9
"""Share of a series' length below which what is left of it is rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficient:
    """A correlation coefficient and how sure it is."""

    r: float
    """−1 … 1."""
    p: float
    """Two-sided, Student's t, as if all points were independent: far too small for a training run."""
    n_effective: float
    """Independent points: n · (1 − ab) / (1 + ab) for lag-1 autocorrelations a and b, at most n."""
    p_adjusted: float | None
    """Two-sided p for `n_effective` points; None where these leave no degree of freedom."""


def pearson(
    x_N: NDArray[np.float64], y_N: NDArray[np.float64], removed_N: NDArray[np.float64] | None = None
) -> Coefficient | None:
    """Pearson's r; with `removed_N` the partial one: of what straight lines in it leave of both.

    None below `MIN_POINTS` points, and where a series, or what is left of it, is constant. The effective
    number of points is that of Bretherton et al. 1999 (J. Climate 12), a case of Pyper and Peterman 1998.
    """
    if len(x_N) < MIN_POINTS:
        return None
    x_left_N, y_left_N = _residuals(x_N, removed_N), _residuals(y_N, removed_N)
    if x_left_N is None or y_left_N is None:
        return None
    n, lost = len(x_N), 2 + (removed_N is not None)
    r = float(np.clip(stats.pearsonr(x_left_N, y_left_N).statistic, -1, 1))
    both = _autocorrelation(x_left_N) * _autocorrelation(y_left_N)
    n_effective = min(float(n), n * (1 - both) / (1 + both))
    return Coefficient(
        r=r,
        p=_two_sided(r, n - lost),
        n_effective=n_effective,
        p_adjusted=_two_sided(r, n_effective - lost) if n_effective > lost else None,
    )


def spearman(
    x_N: NDArray[np.float64], y_N: NDArray[np.float64], removed_N: NDArray[np.float64] | None = None
) -> Coefficient | None:
    """Spearman's rank correlation: `pearson` of the ranks, ties sharing their mean rank."""
    return pearson(
        stats.rankdata(x_N), stats.rankdata(y_N), None if removed_N is None else stats.rankdata(removed_N)
    )


def _residuals(
    values_N: NDArray[np.float64], removed_N: NDArray[np.float64] | None
) -> NDArray[np.float64] | None:
    """What the mean, and a straight line in `removed_N`, leave; None where that is nothing but rounding."""
    left_N: NDArray[np.float64] = values_N - values_N.mean()
    length = float(np.linalg.norm(left_N))
    if length <= _STRAIGHT * float(np.linalg.norm(values_N)):
        return None
    if removed_N is None:
        return left_N
    line_N = removed_N - removed_N.mean()
    squared = float(line_N @ line_N)
    if squared > 0:
        left_N = left_N - line_N * float(line_N @ left_N) / squared
    return left_N if float(np.linalg.norm(left_N)) > _STRAIGHT * length else None


def _autocorrelation(centred_N: NDArray[np.float64]) -> float:
    """Lag-1 autocorrelation of a series of mean 0."""
    return float(centred_N[:-1] @ centred_N[1:] / (centred_N @ centred_N))


def _two_sided(r: float, degrees: float) -> float:
    """p of a coefficient by Student's t."""
    if abs(r) >= 1:
        return 0.0
    return float(2 * stats.t.sf(abs(r) * math.sqrt(degrees / (1 - r * r)), degrees))
