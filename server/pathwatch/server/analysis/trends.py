"""Which way a metric goes after memorization: a quadratic fit over rescaled time (paper Fig. 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

MIN_POINTS = 5
"""Points below which nothing is fitted: a parabola passes through three, and an error needs a few more."""
CERTAINTY = 0.95
"""Confidence (two-sided, Student's t) with which a curvature must differ from 0 to count as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuadraticTrend:
    """y = intercept + slope_start·x + curvature/2·x², with x = 0 at the first point and 1 at the last.

    Slopes are changes of the metric per whole length of the series.
    """

    intercept: float
    slope_start: float
    slope_end: float
    curvature: float
    """Second derivative; slope_end − slope_start."""
    curvature_stderr: float
    """Of the least squares fit. Neighbouring points of a run are not independent: the true one is larger."""
    r_squared: float | None
    """Share of the variance that the fit explains; None where the values are all alike."""
    shape: Literal["convex", "concave", "straight"]
    """straight: the curvature cannot be told from 0."""
    points: int

    def at(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of the fit at rescaled times."""
        return self.intercept + self.slope_start * x + self.curvature / 2 * x**2


def quadratic_trend(steps_S: NDArray[np.integer], values_S: NDArray[np.floating]) -> QuadraticTrend | None:
    """Least squares over the points where the values are defined (not NaN); None below five such points."""
    defined_S = np.isfinite(values_S)
    if defined_S.sum() < MIN_POINTS:
        return None
    steps, values = steps_S[defined_S].astype(np.float64), values_S[defined_S].astype(np.float64)
    x = (steps - steps[0]) / (steps[-1] - steps[0])
    coefficients, covariance = np.polyfit(x, values, 2, cov=True)
    half_curvature, slope, intercept = map(float, coefficients)
    curvature, stderr = 2 * half_curvature, 2 * math.sqrt(max(float(covariance[0, 0]), 0.0))
    residuals = float(((values - np.polyval(coefficients, x)) ** 2).sum())
    spread = float(((values - values.mean()) ** 2).sum())
    needed = float(stats.t.ppf((1 + CERTAINTY) / 2, len(values) - len(coefficients))) * stderr
    curved = np.ptp(values) > 0 and abs(curvature) >= needed
    return QuadraticTrend(
        intercept=intercept,
        slope_start=slope,
        slope_end=slope + curvature,
        curvature=curvature,
        curvature_stderr=stderr,
        r_squared=1 - residuals / spread if np.ptp(values) > 0 else None,
        shape=("convex" if curvature > 0 else "concave") if curved else "straight",
        points=len(values),
    )
