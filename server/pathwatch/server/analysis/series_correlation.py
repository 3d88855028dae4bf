"""How far two metrics of one run rise and fall together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.analysis.coefficients import Coefficient, pearson, spearman


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesCorrelation:
    """Correlation over the points where both series are defined."""

    spearman: Coefficient
    pearson: Coefficient
    points: int


def series_correlation(
    first_T: NDArray[np.float64], second_T: NDArray[np.float64]
) -> SeriesCorrelation | None:
    """NaN = undefined at that point. None below four common points, and where a series does not change."""
    both_T = np.isfinite(first_T) & np.isfinite(second_T)
    by_rank, by_value = (
        spearman(first_T[both_T], second_T[both_T]),
        pearson(first_T[both_T], second_T[both_T]),
    )
    if by_rank is None or by_value is None:
        return None
    return SeriesCorrelation(spearman=by_rank, pearson=by_value, points=int(both_T.sum()))
