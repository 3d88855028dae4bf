"""Coefficients against SciPy and the textbook's formulas; adjusted p-values against simulated series."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from pathwatch.server.analysis.coefficients import pearson, spearman

Seeds = st.integers(0, 2**32 - 1)


def three_series(seed: int, n: int, digits: int) -> tuple[NDArray[np.float64], ...]:
    """Related series; few digits make ties."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=n)
    x, y, z = (np.round(common * rng.normal() + rng.normal(size=n), digits) for _ in range(3))
    return x, y, z


def autoregressive(rng: np.random.Generator, n: int, memory: float) -> NDArray[np.float64]:
    noise = rng.normal(size=n)
    series = np.zeros(n)
    series[0] = noise[0] / np.sqrt(1 - memory**2)
    for t in range(1, n):
        series[t] = memory * series[t - 1] + noise[t]
    return series


@pytest.mark.slow
@given(Seeds, st.integers(4, 60), st.sampled_from([0, 1, 6]))
def test_coefficients_and_plain_p_are_scipys(seed: int, n: int, digits: int) -> None:
    x, y, _ = three_series(seed, n, digits)
    assume(np.ptp(x) > 0 and np.ptp(y) > 0)
    for ours, theirs in ((pearson(x, y), stats.pearsonr(x, y)), (spearman(x, y), stats.spearmanr(x, y))):
        assert ours is not None
        assert ours.r == pytest.approx(theirs.statistic, abs=1e-9)
        # At |r| = 1 p hangs on the last bit of r.
        if abs(ours.r) < 1 - 1e-9:
            assert ours.p == pytest.approx(theirs.pvalue, rel=1e-5, abs=1e-12)


@pytest.mark.slow
@given(Seeds, st.integers(5, 60))
def test_partial_coefficients_follow_the_textbook(seed: int, n: int) -> None:
    x, y, z = three_series(seed, n, 6)
    for ours, of in ((pearson(x, y, z), stats.pearsonr), (spearman(x, y, z), stats.spearmanr)):
        xy, xz, yz = of(x, y).statistic, of(x, z).statistic, of(y, z).statistic
        assume(max(abs(xz), abs(yz)) < 0.999)
        expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
        assert ours is not None
        assert ours.r == pytest.approx(expected, abs=1e-6)
        if abs(expected) < 0.999:
            t = abs(expected) * np.sqrt((n - 3) / (1 - expected**2))
            assert ours.p == pytest.approx(2 * stats.t.sf(t, n - 3), rel=1e-3, abs=1e-9)


@given(Seeds, st.integers(4, 60))
def test_the_effective_number_of_points_is_bretherton_and_at_most_n(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=n).cumsum(), rng.normal(size=n).cumsum()
    found = pearson(x, y)
    assert found is not None

    def lag_1(series: NDArray[np.float64]) -> float:
        deviations = series - series.mean()
        return float(sum(a * b for a, b in pairwise(deviations)) / sum(deviations**2))

    ab = lag_1(x) * lag_1(y)
    assert found.n_effective == pytest.approx(min(n, n * (1 - ab) / (1 + ab)))
    if found.n_effective <= 2:
        assert found.p_adjusted is None
    elif found.p_adjusted is not None and found.n_effective < n:
        assert found.p_adjusted >= found.p


def test_unrelated_sluggish_series_fool_p_and_not_adjusted_p() -> None:
    rng = np.random.default_rng(3)
    found = [pearson(autoregressive(rng, 150, 0.9), autoregressive(rng, 150, 0.9)) for _ in range(400)]
    fooled = np.mean([one is not None and one.p < 0.05 for one in found])
    fooled_adjusted = np.mean(
        [one is not None and one.p_adjusted is not None and one.p_adjusted < 0.05 for one in found]
    )
    assert fooled > 0.4
    assert fooled_adjusted < 0.1


def test_a_series_without_movement_has_no_coefficient() -> None:
    line = np.arange(10.0)
    noise = np.random.default_rng(0).normal(size=10)
    assert pearson(np.full(10, 0.1), noise) is None
    assert spearman(noise, np.full(10, 0.1)) is None
    assert pearson(3 * line + 1, noise, line) is None, "nothing is left of a line in the step number"
    assert spearman(np.exp(line), noise, line) is None
    assert pearson(noise[:3], line[:3]) is None


def test_equal_series_correlate_without_doubt() -> None:
    noise = np.random.default_rng(1).normal(size=20)
    same, opposite = pearson(noise, 2 * noise), spearman(noise, -noise)
    assert same is not None
    assert opposite is not None
    assert (same.r, same.p) == (pytest.approx(1), pytest.approx(0, abs=1e-12))
    assert opposite.r == pytest.approx(-1)
