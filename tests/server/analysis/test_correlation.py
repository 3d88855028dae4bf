"""A table of correlations tells what follows the scores from what merely drifts."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from pathwatch.server.analysis.correlation import (
    CONTROL,
    CorrelationTable,
    MetricCorrelation,
    correlation_table,
)
from pathwatch.server.analysis.correlation_words import tracks, warnings
from pathwatch.server.analysis.scores import ScoreSeries, ScoresError, Target
from pathwatch.server.analysis.series import GroupSeries

STEPS = np.arange(0, 4000, 25)
LEAP = 1 / (1 + np.exp(-(STEPS - 2500) / 150.0))
"""Accuracy that leaps late."""


def noise(seed: int, size: float = 0.02) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, size, len(STEPS))


def group(name: str = "math", memorized: int | None = 500, **metrics: NDArray[np.float64]) -> GroupSeries:
    return GroupSeries(group=name, steps_T=STEPS, metrics=metrics, memorized_step=memorized)


def target(series: GroupSeries, scores: NDArray[np.float64], steps: NDArray[np.int64] = STEPS) -> Target:
    return Target(series=series, test="", scores=ScoreSeries(steps_S=steps, scores_S=scores))


def metric(
    table: CorrelationTable, name: str, scope: str = "memorized", group: str = "math"
) -> MetricCorrelation:
    part = next(one for one in table.by_group if one.scope == scope and one.group == group)
    return next(one for one in part.metrics if one.metric == name)


def test_the_warning_names_what_drifts_and_not_what_tracks() -> None:
    series = group(tracking=1 - LEAP + noise(1), drifting=-STEPS / 4000 + noise(2, 0.1))
    table = correlation_table([target(series, LEAP + noise(3))])
    drifts = metric(table, "drifting").pearson
    assert drifts is not None
    assert drifts.r < -0.7, "the plain coefficient is taken in"
    assert tracks(metric(table, "tracking"))
    assert not tracks(metric(table, "drifting"))
    for text in warnings(table):
        beaten = text.split("No better, by either: ")[1].split(". With")[0].split(", ")
        kept = text.split(" for: ")[1].rstrip(".").split(", ")
        assert beaten == ["drifting"]
        assert kept == ["tracking"]


def test_no_warning_where_every_metric_does_better_than_the_step_number() -> None:
    rises_and_falls = np.sin(STEPS / 400)
    table = correlation_table([target(group(tracking=rises_and_falls + noise(1)), rises_and_falls)])
    assert warnings(table) == ()


def test_after_memorization_counts_only_what_came_since() -> None:
    values = np.where(STEPS < 500, -5.0, LEAP) + noise(4)
    table = correlation_table([target(group(one=values), LEAP)])
    since = STEPS >= 500
    for scope, chosen in (("memorized", since), ("run", np.ones(len(STEPS), bool))):
        found = metric(table, "one", scope)
        assert found.n == chosen.sum()
        assert found.pearson is not None
        assert found.spearman is not None
        assert found.pearson.r == pytest.approx(stats.pearsonr(values[chosen], LEAP[chosen]).statistic)
        assert found.spearman.r == pytest.approx(stats.spearmanr(values[chosen], LEAP[chosen]).statistic)
        assert found.step_pearson == pytest.approx(stats.pearsonr(STEPS[chosen], LEAP[chosen]).statistic)


def test_the_control_is_taken_over_the_points_of_the_metric() -> None:
    late = np.where(STEPS < 3000, np.nan, noise(5))
    table = correlation_table([target(group(late=late), LEAP)])
    found, defined = metric(table, "late"), STEPS >= 3000
    assert found.n == defined.sum()
    assert found.step_pearson == pytest.approx(stats.pearsonr(STEPS[defined], LEAP[defined]).statistic)
    assert metric(table, CONTROL).n > found.n


def test_scores_between_windows_meet_the_line_between_them() -> None:
    steps = STEPS[:-1] + 10
    values = noise(6)
    between = values[:-1] + (values[1:] - values[:-1]) * 10 / 25
    table = correlation_table([target(group(one=values), LEAP[:-1], steps)])
    found = metric(table, "one", "run")
    assert found.pearson is not None
    assert found.pearson.r == pytest.approx(stats.pearsonr(between, LEAP[:-1]).statistic)
    assert table.by_group[-1].interpolated == len(steps)
    assert any(f"{len(steps)} of {len(steps)}" in remark for remark in table.remarks)


def test_scores_outside_of_the_run_are_left_out_and_counted() -> None:
    steps = np.append(STEPS, [4000, 5000])
    table = correlation_table([target(group(one=noise(7)), np.append(LEAP, [0.0, 0.0]), steps)])
    assert metric(table, "one", "run").n == len(STEPS)
    assert any("2 scores outside" in remark for remark in table.remarks)


def test_too_few_scores_are_an_error_that_names_the_group() -> None:
    few = target(group(one=noise(8)), LEAP[:3], STEPS[:3])
    with pytest.raises(ScoresError, match="'math': 3 scored steps"):
        correlation_table([few])


def test_a_group_that_was_not_memorized_in_time_has_the_whole_run_only() -> None:
    for memorized, said in ((None, "never counted as memorized"), (3950, "too few")):
        table = correlation_table([target(group(memorized=memorized, one=noise(9)), LEAP)])
        assert [one.scope for one in table.by_group] == ["run"]
        assert any(said in remark for remark in table.remarks)


def test_loss_comes_with_a_moving_average_of_what_was_known_and_validation_loss_with_its_own_steps() -> None:
    loss = 2 - LEAP + noise(10, 0.3)
    held_out = ScoreSeries(steps_S=STEPS[::4], scores_S=3 - LEAP[::4])
    table = correlation_table(
        [target(group(train_loss=loss), LEAP)], average=3, validation={"": held_out, "code": held_out}
    )
    averages = [loss[max(0, t - 2) : t + 1].mean() for t in range(len(STEPS))]
    found = metric(table, "train_loss_moving_average", "run")
    assert found.pearson is not None
    assert found.pearson.r == pytest.approx(stats.pearsonr(averages, LEAP).statistic)
    held = metric(table, "validation_loss", "run")
    assert held.n == (STEPS[::4][-1] >= STEPS).sum()
    assert held.pearson is not None
    assert held.pearson.r < -0.99


def test_what_says_how_sure_a_metric_is_is_no_metric() -> None:
    extra = {"path_distance_stderr": noise(1), "window_samples": noise(2), "same_target_pairs": noise(3)}
    table = correlation_table([target(group(path_distance=noise(4), **extra), LEAP)])
    assert [one.metric for one in table.by_group[0].metrics] == [CONTROL, "path_distance"]


def test_overall_is_the_mean_of_coefficients_and_the_coefficient_of_means() -> None:
    scores = {"math": LEAP, "code": np.roll(LEAP, 10) + noise(1)}
    values = {name: -one + noise(seed, 0.2) for seed, (name, one) in enumerate(scores.items())}
    table = correlation_table([target(group(name, 500, one=values[name]), scores[name]) for name in scores])
    single = [metric(table, "one", "run", name).pearson for name in scores]
    mean = next(one for one in table.means if one.metric == "one" and one.scope == "run")
    assert mean.groups == 2
    assert mean.pearson == pytest.approx(np.mean([one.r for one in single if one is not None]))
    pooled = next(one for one in table.pooled if one.scope == "run")
    expected = stats.pearsonr(sum(values.values()), sum(scores.values())).statistic
    assert pooled.metrics[1].pearson is not None
    assert pooled.metrics[1].pearson.r == pytest.approx(expected)


def test_the_mean_of_groups_begins_when_the_last_is_memorized_and_skips_those_that_never_are() -> None:
    one, two = group("a", 500, x=noise(1)), group("b", 1000, x=noise(2))
    never = group("c", None, x=noise(3))
    table = correlation_table([target(each, LEAP) for each in (one, two, never)])
    first = {part.scope: part.first_step for part in table.pooled}
    assert first == {"memorized": 1000, "run": 0}
    alone = correlation_table([target(one, LEAP), target(never, LEAP)])
    assert [part.scope for part in alone.pooled] == ["run"]


def test_scores_that_hardly_move_beside_others_are_pointed_out() -> None:
    flat = np.abs(noise(1, 0.01))
    table = correlation_table(
        [target(group("a", 0, x=noise(2)), LEAP), target(group("b", 0, x=noise(3)), flat)]
    )
    told = [remark for remark in table.remarks if "hardly moved" in remark]
    assert len(told) == 1
    assert told[0].startswith("Group b")


def test_a_constant_metric_is_there_without_coefficients() -> None:
    table = correlation_table([target(group(flat=np.ones(len(STEPS))), LEAP)])
    found = metric(table, "flat")
    assert (found.pearson, found.spearman, found.partial_pearson) == (None, None, None)
    assert warnings(table) == ()
