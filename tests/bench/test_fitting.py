"""Leave one run out."""

import pytest

from bench.signal.fitting import leave_one_run_out
from bench.signal.outcome import GroupOutcome, Outcome
from pathwatch.server.phases.verdict import Phase

ACCURACY = [0.0, 0.4, 0.8, 0.9, 1.0]


def chooses(point_by_run):
    """A rule that keeps the checkpoint which the setting names for the run, and says nothing."""

    def rule(run, setting):
        point = point_by_run[run.name][setting]
        return Outcome(
            stop=None, groups={"a": GroupOutcome(phases=[], chosen_at_stop=point, chosen_at_end=point)}
        )

    return rule


def test_a_run_does_not_choose_its_own_setting(make_run):
    runs = [make_run({"a": ACCURACY}, name=name) for name in ("usual", "common", "odd")]
    # The odd run is best with setting 1, all others with setting 0.
    rule = chooses({"usual": [4, 2], "common": [3, 2], "odd": [1, 4]})
    held_out = leave_one_run_out(runs, [0, 1], rule)
    assert [run.setting for run in held_out] == [1, 1, 0]
    assert held_out[2].score.groups[0].at_stop.regret == pytest.approx(0.6), (
        "with the others' setting, not its own"
    )


def test_the_sum_over_the_other_runs_decides(make_run):
    runs = [make_run({"a": ACCURACY}, name=name) for name in ("r0", "r1", "r2", "r3")]
    rule = chooses({"r0": [4, 3], "r1": [4, 3], "r2": [4, 3], "r3": [2, 4]})
    assert [run.setting for run in leave_one_run_out(runs, [0, 1], rule)] == [0, 0, 0, 0]


def says(phases_by_run):
    def rule(run, setting):
        return Outcome(
            stop=None,
            groups={
                group: GroupOutcome(
                    phases=phases_by_run[setting].get(group, []), chosen_at_stop=0, chosen_at_end=0
                )
                for group in run.groups
            },
        )

    return rule


def test_a_false_group_outweighs_one_found(make_run):
    runs = [make_run({"learns": ACCURACY, "never": [0.0] * 5}, name=name) for name in ("r0", "r1")]
    onset = [(1, Phase.GENERALIZING)]
    hasty, mute = {"learns": onset, "never": onset}, {}
    assert [run.setting for run in leave_one_run_out(runs, [0, 1], says([hasty, mute]))] == [1, 1]
    right = {"learns": onset}
    assert [run.setting for run in leave_one_run_out(runs, [0, 1, 2], says([hasty, mute, right]))] == [2, 2]


def test_overfitting_text_called_generalized_is_false(make_run):
    text = [make_run({"text": [3.0, 2.0, 4.0, 5.0, 6.0]}, accuracy=False, name=f"t{i}") for i in range(2)]
    finished = {"text": [(1, Phase.GENERALIZING), (2, Phase.GENERALIZED)]}
    assert [run.setting for run in leave_one_run_out(text, [0, 1], says([finished, {}]))] == [1, 1]


def test_equals_are_settled_by_the_order_of_the_settings(make_run):
    runs = [make_run({"a": ACCURACY}, name=name) for name in ("r0", "r1", "r2")]
    rule = chooses({name: [3, 3, 3] for name in ("r0", "r1", "r2")})
    assert [run.setting for run in leave_one_run_out(runs, [0, 1, 2], rule)] == [0, 0, 0]


def test_one_run_has_nothing_to_fit_on(make_run):
    with pytest.raises(ValueError, match="two runs or more"):
        leave_one_run_out([make_run({"a": ACCURACY})], [0], chooses({"made-up": [0]}))
