"""The rules that the detector is measured against."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.signal import baselines
from bench.signal.courses import first_held, smallest_so_far, smoothed
from pathwatch.server.phases.verdict import Phase

FALL = baselines.FallSetting(fall=0.1, reference="maximum", hold=3, patience=5)
DISTANCE = baselines.falling("path_distance", relative=True)
RULES = {
    "loss patience": baselines.loss_patience,
    "smallest loss": baselines.smallest_loss,
    "last checkpoint": baselines.last_checkpoint,
    "step number": lambda run: baselines.step_number(run, baselines.StepSetting(onset=0.3, stop=0.7)),
    "D_path": lambda run: DISTANCE(run, FALL),
    "D_path since memorized": lambda run: DISTANCE(run, replace(FALL, reference="memorized")),
    "C_i": lambda run: baselines.falling("path_consistency", relative=False)(run, FALL),
}

values = st.lists(st.floats(0.125, 2.0, width=16) | st.just(float("nan")), min_size=12, max_size=30)


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
@given(data=values, cut=st.integers(1, 30))
def test_no_rule_looks_ahead(make_run_once, rule, data, cut):
    run = make_run_once(data)
    cut = min(cut, len(data))
    shorter = replace(
        run,
        steps_T=run.steps_T[:cut],
        losses_TG=run.losses_TG[:cut],
        memorized_TG=run.memorized_TG[:cut],
        metrics={name: metric_TG[:cut] for name, metric_TG in run.metrics.items()},
        scores_TG=run.scores_TG[:cut],
    )
    whole, part = RULES[rule](run), RULES[rule](shorter)
    phases = [change for change in whole.groups["a"].phases if change[0] < cut]
    assert list(part.groups["a"].phases) == phases
    if whole.stop is not None and whole.stop < cut - 1:
        assert part.stop == whole.stop
        assert part.groups["a"].chosen_at_stop == whole.groups["a"].chosen_at_stop
    elif part.stop is not None:
        assert part.stop == whole.stop == cut - 1
    if part.stop is None:
        assert part.groups["a"].chosen_at_stop < cut


@pytest.fixture(scope="module")
def make_run_once():
    """As `make_run`, for a test that is called many times over: one series is loss and metric."""
    from bench.signal.measuring import METRICS, MeasuredRun

    def make(series):
        series_TG = np.array(series)[:, None]
        return MeasuredRun(
            name="made-up",
            accuracy=True,
            groups=("a",),
            steps_T=np.arange(1, len(series) + 1) * 10,
            planned_steps=len(series) * 10,
            rounds=[{}] * len(series),
            losses_TG=series_TG,
            memorized_TG=np.clip(series_TG, 0, 1),
            metrics=dict.fromkeys(METRICS, series_TG),
            scores_TG=np.zeros_like(series_TG),
        )

    return make


def test_loss_patience_keeps_the_checkpoint_where_it_stops(make_run):
    losses = [5.0, 4.0, 3.0, *[3.5] * 20]
    run = make_run(
        {"a": [0.0] * 23, "b": [0.0] * 23}, losses={"a": losses, "b": [1.0 - i / 50 for i in range(23)]}
    )
    outcome = baselines.loss_patience(run)
    # The mean of five falls until it holds 3.5 alone or with 3: smallest at point 6 (3, 3.5 × 4).
    assert outcome.groups["a"].chosen_at_end == 16
    assert outcome.groups["b"].chosen_at_end == 22
    assert outcome.stop is None, "b never ran out of patience"


def test_loss_patience_stops_when_all_groups_ran_out(make_run):
    early, late = [1.0] * 30, [1.0 - min(i, 10) / 20 for i in range(30)]
    run = make_run({"a": [0.0] * 30, "b": [0.0] * 30}, losses={"a": early, "b": late})
    outcome = baselines.loss_patience(run)
    assert outcome.groups["a"].chosen_at_stop == 10
    # Smoothed over five, the loss of b is at its minimum from point 14 on.
    assert outcome.stop == outcome.groups["b"].chosen_at_stop == 24


def test_smallest_loss_is_that_of_the_smoothed_curve(make_run):
    losses = [3.0, 2.0, 0.1, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0]
    run = make_run({"a": [0.0] * 15}, losses={"a": losses})
    assert baselines.smallest_loss(run).groups["a"].chosen_at_end == 12, "not the single 0.1 at 2"


def test_a_falling_distance_is_an_onset_and_its_halt_the_finish(make_run):
    distance = [10.0] * 10 + [5.0] * 20
    outcome = DISTANCE(make_run({"a": [0.0] * 30}, metrics={"path_distance": distance}), FALL)
    # The mean of five is 9, 8, 7, 6, 5 at points 10 … 14: a tenth below 10 from 10 on, so 12 is the third.
    assert outcome.groups["a"].phases == [(12, Phase.GENERALIZING), (19, Phase.GENERALIZED)]
    assert outcome.stop == 19
    assert outcome.groups["a"].chosen_at_stop == 14


def test_a_rising_distance_is_none(make_run):
    outcome = DISTANCE(make_run({"a": [0.0] * 30}, metrics={"path_distance": list(range(30))}), FALL)
    assert outcome.stop is None
    assert outcome.groups["a"].phases == []
    assert outcome.groups["a"].chosen_at_end == 29


def test_the_reference_since_memorization_forgets_what_was_before(make_run):
    run = make_run({"a": [0.0] * 30}, metrics={"path_distance": [20.0] * 10 + [10.0] * 20})
    late = replace(run, memorized_TG=np.repeat([0.0, 1.0], 15)[:, None])
    assert DISTANCE(late, FALL).groups["a"].phases
    assert DISTANCE(late, replace(FALL, reference="memorized")).groups["a"].phases == []
    never = replace(run, memorized_TG=np.zeros((30, 1)))
    assert DISTANCE(never, replace(FALL, reference="memorized")).groups["a"].phases == []


def test_an_undefined_metric_says_nothing(make_run):
    run = make_run({"a": [0.0] * 30}, metrics={"path_consistency": [np.nan] * 30})
    outcome = baselines.falling("path_consistency", relative=False)(run, FALL)
    assert outcome.stop is None
    assert outcome.groups["a"].phases == []


def test_the_step_number_treats_all_groups_alike(make_run):
    run = make_run({"a": [0.0] * 10, "b": [1.0] * 10})
    outcome = baselines.step_number(run, baselines.StepSetting(onset=0.3, stop=0.7))
    assert outcome.stop == 6
    assert {group.chosen_at_stop for group in outcome.groups.values()} == {6}
    assert outcome.groups["a"].phases == [(2, Phase.GENERALIZING), (6, Phase.GENERALIZED)]
    never = baselines.step_number(run, baselines.StepSetting(onset=baselines.NEVER, stop=baselines.NEVER))
    assert never.stop is None
    assert never.groups["a"].phases == []


def test_undefined_values_are_left_out_of_means_and_minima():
    smooth_T = smoothed(np.array([np.nan, 2.0, np.nan, 4.0]))
    np.testing.assert_allclose(smooth_T, [np.nan, 2.0, 2.0, 3.0])
    assert smallest_so_far(np.array([3.0, np.nan, 2.0, 2.0, 5.0, 1.0])).tolist() == [0, 0, 2, 2, 2, 5]
    assert smallest_so_far(np.array([1.0, 9.0, 8.0, 8.5]), first=1).tolist() == [0, 1, 2, 2]
    assert first_held(np.array([True, False, True, True]), 2) == 3
    assert first_held(np.array([True]), 2) is None
