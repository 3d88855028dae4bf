import pytest

from pathwatch.server.phases.policies import (
    HOLD,
    IDLE_PATIENCE,
    STRAGGLER_PATIENCE,
    AllGroups,
    Patience,
    Quorum,
)
from pathwatch.server.phases.verdict import Action, GroupVerdict, Phase

L, M, S, G, OVER, R = (
    Phase.LEARNING,
    Phase.MEMORIZED,
    Phase.GENERALIZING,
    Phase.GENERALIZED,
    Phase.OVERFITTING,
    Phase.REGRESSING,
)


def decide(policy, **groups):
    """Decisions every 10 steps up to 3000; a group is a list of (step it changes, phase)."""
    decisions = {}
    for step in range(0, 3001, 10):
        verdicts = {}
        for group, changes in groups.items():
            since, phase, *numbers = [change for change in changes if change[0] <= step][-1]
            verdicts[group] = GroupVerdict(
                phase=phase, since_step=since, reason="", numbers=numbers[0] if numbers else {}
            )
        decisions[step] = policy.decide(step, verdicts)
    return decisions


def stopped(decisions):
    return next((step for step, decision in decisions.items() if decision.action is Action.STOP), None)


def saved(decisions):
    return [step for step, decision in decisions.items() if decision.action is Action.CHECKPOINT]


GROKS = [(0, L), (100, M), (500, S), (700, G)]
GROKS_LATE = [(0, L), (100, M), (900, S), (1100, G)]


def test_all_groups_waits_for_the_last_and_lets_its_verdict_stand():
    decisions = decide(AllGroups(), a=GROKS, b=GROKS_LATE)
    assert stopped(decisions) == 1100 + HOLD * 200
    assert "a GENERALIZED since step 700" in decisions[stopped(decisions)].reason


def test_checkpoints_are_asked_for_before_the_stop():
    decisions = decide(AllGroups(), a=GROKS)
    asked = saved(decisions)
    assert asked[0] == 500
    assert 700 in asked
    assert any(500 < step < 700 for step in asked), "while it generalizes, again"
    assert max(asked) < stopped(decisions)
    assert "a is now GENERALIZING" in decisions[500].reason


def test_a_group_that_never_generalizes_does_not_hold_the_run_for_ever():
    decisions = decide(AllGroups(), a=GROKS, never=[(0, L), (100, M)])
    assert stopped(decisions) == 100 + STRAGGLER_PATIENCE * 400
    assert "never MEMORIZED" in decisions[stopped(decisions)].reason


@pytest.mark.parametrize(
    ("numbers", "patience"),
    [
        ({"drop_net": 0.02, "drop_stderr": 0.05, "largest_other_drop": 0.1}, IDLE_PATIENCE),
        ({"drop_net": 0.2, "drop_stderr": 0.05, "largest_other_drop": 2.0}, IDLE_PATIENCE),
        ({"drop_net": 0.2, "drop_stderr": 0.05, "largest_other_drop": 0.5}, STRAGGLER_PATIENCE),
    ],
)
def test_a_group_whose_routing_moves_is_given_more_time(numbers, patience):
    decisions = decide(AllGroups(), a=GROKS, b=[(0, L), (100, M, numbers)])
    assert stopped(decisions) == 100 + patience * 400
    assert f"no progress in {patience:g} times" in decisions[stopped(decisions)].reason


def test_a_group_that_was_easy_does_not_say_how_long_others_need():
    easy = [(0, L), (100, S), (300, G)]
    slow = [(0, L), (300, M)]
    assert stopped(decide(AllGroups(), easy=easy, slow=slow)) is None
    assert stopped(decide(AllGroups(), easy=easy, slow=slow, a=GROKS)) == 300 + STRAGGLER_PATIENCE * 400


def test_a_group_that_had_moved_is_given_its_time_anew():
    fell_back = [(0, L), (100, M), (800, S), (850, M)]
    assert stopped(decide(AllGroups(), a=GROKS, b=fell_back)) == 850 + STRAGGLER_PATIENCE * 400


@pytest.mark.parametrize(
    "other",
    [[(0, L)], [(0, L), (100, M), (600, S)], [(0, L), (100, M), (300, S), (600, R)], [(0, Phase.UNKNOWN)]],
)
def test_a_run_that_may_still_improve_is_not_stopped(other):
    assert stopped(decide(AllGroups(), a=GROKS, b=other)) is None


def test_a_run_where_nothing_generalized_is_not_stopped():
    assert stopped(decide(AllGroups(), a=[(0, L), (100, M)], b=[(0, L), (50, M)])) is None


def test_overfitting_groups_are_finished_and_worth_a_checkpoint():
    decisions = decide(AllGroups(), a=[(0, L), (300, OVER)], b=[(0, L), (600, OVER)])
    assert saved(decisions) == [300]
    assert stopped(decisions) == 600


def test_an_overfitting_group_whose_routing_can_tell_may_yet_generalize():
    overfits = [(0, L), (100, OVER, {"routing_by_target": 1.0})]
    assert stopped(decide(AllGroups(), a=overfits)) is None
    assert stopped(decide(AllGroups(), a=overfits, b=GROKS)) == 100 + STRAGGLER_PATIENCE * 400


def test_a_withdrawn_verdict_does_not_count():
    withdrawn = [(0, L), (100, M), (500, S), (700, G), (720, M), (1500, S), (1620, G)]
    assert stopped(decide(AllGroups(), a=withdrawn)) == 1620 + HOLD * 120


def test_quorum_stops_when_its_share_is_finished():
    groups = {"a": GROKS, "b": GROKS_LATE, "c": [(0, L)]}
    assert stopped(decide(Quorum(quorum="0.3"), **groups)) == 700 + HOLD * 200
    assert stopped(decide(Quorum(quorum="0.5"), **groups)) == 1100 + HOLD * 200
    assert stopped(decide(Quorum(quorum="1"), **groups)) is None


def test_a_group_given_up_does_not_count_towards_the_quorum():
    groups = {"a": GROKS, "b": [(0, L), (100, M), (800, S)], "c": [(0, L), (100, M)], "d": [(0, L), (100, M)]}
    assert stopped(decide(AllGroups(), **{name: groups[name] for name in "acd"})) is not None
    assert stopped(decide(Quorum(quorum="0.75"), **groups)) is None, "b is still generalizing"


def test_patience_gives_up_on_a_run_that_stands_still():
    decisions = decide(Patience(patience="2"), a=[(0, L), (100, M)])
    assert stopped(decisions) == 300
    assert "since step 100" in decisions[300].reason
    assert stopped(decide(Patience(patience="2"), a=[(0, L), (100, M), (280, S)])) is None
    assert stopped(decide(Patience(), a=[(0, L)])) is None


@pytest.mark.parametrize(
    ("policy", "options", "named"),
    [
        (Quorum, {"quorum": "half"}, "quorum"),
        (Quorum, {"quorum": "0"}, "quorum"),
        (Quorum, {"quorum": "1.5"}, "quorum"),
        (Quorum, {"quorum": "nan"}, "quorum"),
        (Quorum, {"qorum": "1"}, "qorum"),
        (AllGroups, {"quorum": "1"}, "quorum"),
        (Patience, {"patience": "-1"}, "patience"),
        (Patience, {"patience": ""}, "patience"),
    ],
)
def test_bad_options_are_named(policy, options, named):
    with pytest.raises(ValueError, match=named):
        policy(**options)


def test_no_groups_yet_is_no_reason_to_do_anything():
    for policy in (AllGroups(), Quorum(), Patience()):
        assert policy.decide(0, {}).action is Action.CONTINUE
