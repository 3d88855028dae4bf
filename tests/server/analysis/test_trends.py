"""Quadratic fits after t*."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from pathwatch.server.analysis.trends import quadratic_trend

NUMBER = st.floats(-5, 5).map(lambda value: round(value, 3))


@given(NUMBER, NUMBER, NUMBER, st.integers(5, 30), st.sampled_from([1, 25, 10**5]))
def test_a_parabola_is_found_whatever_the_steps(
    intercept: float, slope: float, half_curvature: float, points: int, spacing: int
) -> None:
    steps = 1000 + spacing * np.arange(points)
    x = np.linspace(0, 1, points)
    found = quadratic_trend(steps, intercept + slope * x + half_curvature * x**2)
    assert found is not None
    assert found.points == points
    assert found.intercept == pytest.approx(intercept, abs=1e-6)
    assert found.slope_start == pytest.approx(slope, abs=1e-6)
    assert found.slope_end == pytest.approx(slope + 2 * half_curvature, abs=1e-6)
    assert found.curvature == pytest.approx(2 * half_curvature, abs=1e-6)
    np.testing.assert_allclose(found.at(x), intercept + slope * x + half_curvature * x**2, atol=1e-6)
    if abs(half_curvature) > 0.01:
        assert found.shape == ("convex" if half_curvature > 0 else "concave")
        assert found.r_squared == pytest.approx(1)


def test_it_is_least_squares_with_the_usual_errors() -> None:
    random = np.random.default_rng(1)
    steps = np.sort(random.choice(5000, 40, replace=False))
    values = random.normal(size=40)
    found = quadratic_trend(steps, values)
    assert found is not None
    x = (steps - steps[0]) / (steps[-1] - steps[0])
    (a, b, c), covariance = curve_fit(lambda x, a, b, c: a + b * x + c * x**2, x, values)
    assert (found.intercept, found.slope_start, found.curvature) == pytest.approx((a, b, 2 * c), abs=1e-6)
    assert found.curvature_stderr == pytest.approx(2 * covariance[2, 2] ** 0.5, rel=1e-4)
    residuals = values - (a + b * x + c * x**2)
    assert found.r_squared == pytest.approx(1 - residuals.var() / values.var(), abs=1e-6)


@pytest.mark.parametrize("points", [6, 30])
def test_noise_is_called_a_curve_one_time_in_twenty(points: int) -> None:
    random = np.random.default_rng(points)
    steps = np.arange(points)
    fits = [quadratic_trend(steps, 0.1 * steps + random.normal(size=points)) for _ in range(600)]
    curved = sum(found is not None and found.shape != "straight" for found in fits)
    assert curved / len(fits) == pytest.approx(0.05, abs=0.025)


def test_undefined_points_take_no_part() -> None:
    values = np.array([np.nan, 1.0, 4.0, np.nan, 16.0, 25.0, 36.0, np.nan])
    found, without = (
        quadratic_trend(np.arange(8), values),
        quadratic_trend(np.array([1, 2, 4, 5, 6]), np.array([1.0, 4.0, 16.0, 25.0, 36.0])),
    )
    assert found == without
    assert found is not None
    assert found.points == 5


def test_four_points_are_too_few() -> None:
    assert quadratic_trend(np.arange(4), np.arange(4.0)) is None
    assert quadratic_trend(np.arange(9), np.array([np.nan] * 5 + [1.0, 2.0, 3.0, 4.0])) is None


def test_a_constant_is_straight_and_explains_nothing() -> None:
    found = quadratic_trend(np.arange(8), np.full(8, 3.7))
    assert found is not None
    assert (found.shape, found.r_squared) == ("straight", None)
    assert found.intercept == pytest.approx(3.7)
