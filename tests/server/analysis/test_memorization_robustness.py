"""t* and D_path under other limits (E.3)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pathwatch.server.analysis.cohort_series import MEMORIZED, cohort_series
from pathwatch.server.analysis.cohorts import group_cohorts
from pathwatch.server.analysis.memorization_robustness import limit_variants
from pathwatch.server.metrics.summary import MetricSettings
from pathwatch.server.traces import Trace, load_trace

TRACES = Path(__file__).parents[2] / "data" / "traces"
SETTINGS = MetricSettings()


def test_each_variant_is_the_series_of_memorized_samples_under_its_limits(
    random_trace: Callable[..., Trace],
) -> None:
    trace = random_trace(2, samples=14)
    points = list(range(len(trace.steps_T)))
    cohorts = group_cohorts(trace, "group1", epsilon=0.3, delta=0.04, limit=4)
    variants = limit_variants(trace, cohorts, points, SETTINGS)
    assert [(one.epsilon, one.delta) for one in variants] == [
        (epsilon, delta) for epsilon in (0.15, 0.3, 0.6) for delta in (0.02, 0.04, 0.08)
    ]
    assert len({one.memorized_samples for one in variants}) > 1
    for one in variants:
        own = group_cohorts(trace, "group1", epsilon=one.epsilon, delta=one.delta, limit=1)
        assert one.memorized_samples == own.memorized_samples
        assert one.median_step == own.median_step
        expected = np.full(len(points), np.nan)
        for series in cohort_series(trace, [own], points, SETTINGS):
            if series.cohort == MEMORIZED:
                expected[np.isin(trace.steps_T, series.steps_S)] = series.metric("path_distance")
        np.testing.assert_array_equal(one.path_distance_P, expected)


def test_correlations_are_with_the_limits_as_they_are() -> None:
    trace = load_trace(TRACES / "pair_s1.npz")
    cohorts = group_cohorts(trace, "add:0.6", epsilon=None, delta=0.05, limit=4)
    variants = {
        (one.epsilon_factor, one.delta_factor): one
        for one in limit_variants(trace, cohorts, range(0, 161, 4), SETTINGS)
    }
    as_is = variants[1.0, 1.0]
    assert as_is.spearman == pytest.approx(1)
    assert as_is.memorized_samples == cohorts.memorized_samples
    for one in variants.values():
        both = np.isfinite(one.path_distance_P) & np.isfinite(as_is.path_distance_P)
        expected = stats.spearmanr(one.path_distance_P[both], as_is.path_distance_P[both]).statistic
        assert one.spearman == pytest.approx(expected)


def test_stricter_limits_never_memorize_more_or_earlier(random_trace: Callable[..., Trace]) -> None:
    trace = random_trace(4, samples=30)
    cohorts = group_cohorts(trace, "group0", epsilon=0.3, delta=0.04, limit=4)
    variants = {
        (one.epsilon_factor, one.delta_factor): one for one in limit_variants(trace, cohorts, [0], SETTINGS)
    }
    for factor in (0.5, 1.0, 2.0):
        by_epsilon = [variants[epsilon, factor].memorized_samples for epsilon in (0.5, 1.0, 2.0)]
        assert by_epsilon == sorted(by_epsilon)
        medians = [variants[factor, delta].median_step for delta in (2.0, 1.0, 0.5)]
        assert medians == sorted(medians, key=lambda step: step or 0)


def test_a_group_without_losses_has_no_variants(random_trace: Callable[..., Trace]) -> None:
    trace = random_trace(losses_TGN=np.full((12, 2, 9), np.nan, dtype=np.float32))
    cohorts = group_cohorts(trace, "group0", epsilon=None, delta=0.05, limit=4)
    assert limit_variants(trace, cohorts, [0, 11], SETTINGS) == ()
