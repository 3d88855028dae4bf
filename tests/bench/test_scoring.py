"""Found, false, lead, regret: worked out by hand."""

import pytest

from bench.signal.outcome import GroupOutcome, Outcome
from bench.signal.scoring import score
from bench.signal.summary import summarize
from pathwatch.server.phases.verdict import Phase

LEARNS = [0.0, 0.2, 0.4, 0.6, 0.8, 0.9]
NEVER = [0.0, 0.1, 0.2, 0.3, 0.4, 0.49]
M, G, D = Phase.MEMORIZED, Phase.GENERALIZING, Phase.GENERALIZED


def said(*phases, stop=5, end=5):
    return GroupOutcome(phases=phases, chosen_at_stop=stop, chosen_at_end=end)


def judged(run, *groups, stop=None):
    return score(run, Outcome(stop=stop, groups=dict(zip(run.groups, groups, strict=True))))


@pytest.mark.parametrize(
    ("phases", "onset", "withdrawn", "confirmed", "early"),
    [
        ([(0, M)], None, 0, False, False),
        ([(0, M), (2, G)], 30, 0, False, False),
        ([(0, M), (1, G), (2, M), (4, G)], 50, 1, False, False),
        ([(0, M), (1, G), (2, M)], None, 1, False, False),
        ([(0, M), (1, G), (2, D), (3, M), (4, G), (5, D)], 50, 1, True, True),
        ([(0, M), (1, G), (3, D), (4, Phase.REGRESSING), (5, G)], 20, 0, True, False),
        ([(0, M), (1, G), (2, Phase.OVERFITTING)], None, 1, False, False),
        ([(0, M), (3, D)], 40, 0, True, False),
    ],
)
def test_an_onset_counts_while_it_is_not_taken_back(make_run, phases, onset, withdrawn, confirmed, early):
    group = judged(make_run({"a": LEARNS}), said(*phases)).groups[0]
    assert (group.onset_step, group.onsets_withdrawn) == (onset, withdrawn)
    assert (group.confirmed, group.confirmed_early) == (confirmed, early)


def test_numbers_of_two_runs_with_accuracy(make_run):
    first = judged(
        make_run({"a": LEARNS, "b": NEVER}),
        said((0, M), (1, G), stop=3, end=4),
        said((0, M), (1, G), (2, M)),
        stop=3,
    )
    second = judged(make_run({"a": LEARNS, "b": NEVER}), said((0, M)), said((0, M), (4, G), (5, D)))
    numbers = summarize([first, second])
    assert (numbers["groups_learned"], numbers["found"], numbers["confirmed"]) == (2, 1, 0)
    assert numbers["lead_median"] == numbers["lead_min"] == 40 - 20
    assert (numbers["groups_never"], numbers["false_onsets"], numbers["false_onsets_withdrawn"]) == (2, 2, 1)
    assert numbers["false_confirmed"] == 1
    assert numbers["regret_at_stop_mean"] == pytest.approx((0.3 + 0.0) / 2)
    assert numbers["regret_at_stop_max"] == pytest.approx(0.3)
    assert numbers["regret_at_end_mean"] == pytest.approx((0.1 + 0.0) / 2)
    assert numbers["saved"] == pytest.approx((1 - 40 / 60) / 2)
    assert numbers["runs_stopped"] == 1
    assert numbers["regret_of_told_mean"] is None
    assert numbers["text_overfit_at_stop_mean"] is None


def test_numbers_of_text(make_run):
    run = make_run(
        {"overfits": [4.0, 3.0, 2.0, 2.5, 3.0, 3.0], "healthy": [4.0, 3.5, 3.0, 2.5, 2.0, 2.02]},
        accuracy=False,
    )
    numbers = summarize(
        [judged(run, said((0, M), (3, Phase.OVERFITTING), stop=1), said((2, G), (3, D), stop=3), stop=3)]
    )
    assert (numbers["text_groups_overfit"], numbers["text_groups_healthy"]) == (1, 1)
    assert numbers["text_overfit_said_overfitting"] == 1
    assert numbers["text_overfit_called_generalized"] == 0
    assert numbers["text_healthy_called_generalized"] == 1
    assert numbers["text_overfit_at_stop_mean"] == pytest.approx(0.5)
    assert numbers["text_overfit_at_end_max"] == pytest.approx(0.5)
    assert numbers["text_healthy_at_stop_mean"] == pytest.approx(0.25)
    assert (numbers["text_runs_healthy_stopped"], numbers["text_runs_healthy"]) == (1, 1)
    assert numbers["groups_learned"] == numbers["groups_never"] == 0
    assert numbers["saved"] is None


def test_a_stopped_run_of_overfitting_groups_only_is_no_fault(make_run):
    run = make_run({"overfits": [4.0, 2.0, 3.0, 4.0, 5.0, 6.0]}, accuracy=False)
    assert summarize([judged(run, said((3, Phase.OVERFITTING)), stop=3)])["text_runs_healthy_stopped"] == 0


@pytest.mark.parametrize(("stop", "cut_off"), [(2, True), (3, False), (None, False)])
def test_cut_off_is_stopped_before_accuracy_has_passed_one_half(make_run, stop, cut_off):
    assert judged(make_run({"a": LEARNS}), said((0, M)), stop=stop).groups[0].cut_off is cut_off
