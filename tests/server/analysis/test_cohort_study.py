"""The study of a whole run, on real training runs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pathwatch.server.analysis.cohort_series import ALL, MEMORIZED
from pathwatch.server.analysis.cohort_study import GroupStudy, StudySettings, cohort_study
from pathwatch.server.analysis.series_correlation import series_correlation
from pathwatch.server.analysis.trends import quadratic_trend
from pathwatch.server.traces import Trace, load_trace

TRACES = Path(__file__).parents[2] / "data" / "traces"
NAMES = {0.5: "path_distance_tau_0_5", 0.6: "path_distance_tau_0_6", 0.7: "path_distance"}
NAMES[0.8] = "path_distance_tau_0_8"


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study() -> tuple[GroupStudy, ...]:
    return cohort_study(load_trace(TRACES / "ol_pair_s0.npz"), StudySettings(every=2))


def test_the_run_s_groups_in_its_order(study: tuple[GroupStudy, ...]) -> None:
    assert [group.group for group in study] == ["add:0.6", "sub:0.6"]


def test_every_nth_point_and_the_last(study: tuple[GroupStudy, ...]) -> None:
    trace = load_trace(TRACES / "ol_pair_s0.npz")
    wanted = [*range(0, 55, 2), 55]
    for group in study:
        whole = group.of(ALL)
        assert whole is not None
        np.testing.assert_array_equal(whole.steps_S, trace.steps_T[wanted])
        np.testing.assert_array_equal(group.limit_steps_P, trace.steps_T[wanted])
        np.testing.assert_array_equal(group.counts.steps_T, trace.steps_T)
        assert group.counts.cumulative_T[-1] == group.cohorts.memorized_samples


def test_trends_are_fits_of_the_series_after_memorization(study: tuple[GroupStudy, ...]) -> None:
    for group in study:
        assert {trend.cohort for trend in group.trends} <= {MEMORIZED} | {
            cohort.name for cohort in group.cohorts.cohorts
        }
        assert {trend.metric for trend in group.trends} == {
            *("path_distance", "path_distance_normalized", "path_consistency", "adjacent_cosine")
        }
        for fitted in group.trends:
            series = group.of(fitted.cohort)
            assert series is not None
            assert fitted.trend == quadratic_trend(series.steps_S, series.metric(fitted.metric))


def test_thresholds_are_compared_in_pairs(study: tuple[GroupStudy, ...]) -> None:
    for group in study:
        found = {
            (one.cohort, one.threshold, one.other_threshold): one.correlation for one in group.thresholds
        }
        assert found.keys() == {
            (cohort, *pair) for cohort in (ALL, MEMORIZED) for pair in combinations((0.5, 0.6, 0.7, 0.8), 2)
        }
        for (cohort, threshold, other), correlation in found.items():
            series = group.of(cohort)
            assert series is not None
            first, second = series.metric(NAMES[threshold]), series.metric(NAMES[other])
            assert correlation.spearman.r == pytest.approx(stats.spearmanr(first, second).statistic)
            assert correlation.pearson.r == pytest.approx(stats.pearsonr(first, second).statistic)
            assert correlation.points == len(first)


def test_entropy_is_held_against_distance(study: tuple[GroupStudy, ...]) -> None:
    for group in study:
        whole = group.of(ALL)
        assert whole is not None
        found = next(one.correlation for one in group.entropy if one.cohort == ALL)
        expected = stats.spearmanr(whole.metric("routing_entropy"), whole.metric("path_distance")).statistic
        assert found.spearman.r == pytest.approx(expected)
        # Many points, few independent ones: a rank correlation of a run is far less certain than it looks.
        assert found.spearman.n_effective < found.points


def test_one_group_is_the_same_alone_as_among_all(study: tuple[GroupStudy, ...]) -> None:
    (alone,) = cohort_study(
        load_trace(TRACES / "ol_pair_s0.npz"), StudySettings(groups=("sub:0.6",), every=2)
    )
    for series, same in zip(alone.series, study[1].series, strict=True):
        assert series.cohort == same.cohort
        np.testing.assert_array_equal(
            series.metric("path_distance_ratio"), same.metric("path_distance_ratio")
        )


def test_a_group_that_is_not_there_is_named() -> None:
    trace = load_trace(TRACES / "ol_pair_s0.npz")
    with pytest.raises(ValueError, match=r"no group 'mul' in ol_pair_s0; it has add:0\.6, sub:0\.6"):
        cohort_study(trace, StudySettings(groups=("mul",)))


def test_nothing_memorized_leaves_the_whole_group(random_trace: Callable[..., Trace]) -> None:
    trace = random_trace()
    for group in cohort_study(trace, StudySettings(epsilon=0.0)):
        assert [series.cohort for series in group.series] == [ALL]
        assert group.trends == ()
        assert group.counts.cumulative_T[-1] == 0
        assert all(variant.spearman is None for variant in group.limits)


def test_undefined_points_and_constant_series_give_no_correlation() -> None:
    rising = np.arange(6.0)
    undefined = np.where(rising < 3, np.nan, rising)
    assert series_correlation(rising, np.full(6, 2.0)) is None
    assert series_correlation(undefined, rising) is None
    falling = series_correlation(np.where(rising < 2, np.nan, rising), -(rising**3))
    assert falling is not None
    assert falling.points == 4
    assert falling.spearman.r == pytest.approx(-1)
    assert -1 < falling.pearson.r < -0.9
