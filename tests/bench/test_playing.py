"""A detector and a policy that follow a script, and what a job that obeys them is left with."""

import pytest

from bench.signal.playing import play
from bench.signal.scoring import score
from bench.signal.summary import summarize
from pathwatch.server.phases.verdict import Action, Decision, GroupVerdict, Phase, RankedCheckpoint

ACCURACY = [0.0, 0.1, 0.3, 0.6, 0.9, 0.8, 1.0, 0.7]


class ScriptedDetector:
    """Says what it was told to; prefers the checkpoint that `preferred` names, else the newest."""

    def __init__(self, phases, preferred=None):
        self.phases = phases
        self.preferred = preferred or {}
        self.seen = []
        self.asked = []

    def update(self, step, round_):
        self.seen.append(step)
        return {
            group: GroupVerdict(phase=script[len(self.seen) - 1], since_step=step, reason="script")
            for group, script in self.phases.items()
            if group in round_
        }

    def rank(self, checkpoints, group):
        steps = [checkpoint.step for checkpoint in checkpoints]
        self.asked.append((self.seen[-1], steps))
        best = self.preferred.get(group, steps[-1])
        order = sorted(checkpoints, key=lambda checkpoint: (checkpoint.step != best, -checkpoint.step))
        return [RankedCheckpoint(checkpoint=one, score=0.0, reason="script") for one in order]


class ScriptedPolicy:
    def __init__(self, actions):
        self.actions = iter(actions)

    def decide(self, step, verdicts):
        return Decision(action=next(self.actions), reason="script")


GO, SAVE, STOP = Action.CONTINUE, Action.CHECKPOINT, Action.STOP
M, G, D = Phase.MEMORIZED, Phase.GENERALIZING, Phase.GENERALIZED


@pytest.fixture
def one_group(make_run):
    return make_run({"a": ACCURACY})


def test_what_is_left_at_a_stop(one_group):
    detector = ScriptedDetector({"a": [M, G, G, G, D, D, D, D]}, {"a": 40})
    result = score(
        one_group, play(one_group, detector, ScriptedPolicy([GO, SAVE, GO, SAVE, GO, STOP, STOP, GO]))
    )
    group = result.groups[0]
    assert result.stop_step == 60
    assert result.saved == pytest.approx(1 - 60 / 80)
    assert (group.at_stop.step, group.at_stop.score) == (40, pytest.approx(0.6))
    assert group.at_stop.regret == pytest.approx(0.4), "against the best of the whole run, after the stop too"
    assert group.learned_step == 40
    assert group.onset_step == 20
    assert group.phases == [(10, "MEMORIZED"), (20, "GENERALIZING"), (50, "GENERALIZED")]
    assert not group.cut_off


def test_no_checkpoint_from_after_the_stop_is_offered(one_group):
    detector = ScriptedDetector({"a": [G] * 8})
    play(one_group, detector, ScriptedPolicy([GO, SAVE, GO, GO, STOP, GO, SAVE, STOP]))
    assert [steps for seen, steps in detector.asked if seen == 50 and len(steps) > 3] == [
        [10, 20, 30, 40, 50]
    ] * 2
    assert all(max(steps) <= seen for seen, steps in detector.asked)


def test_a_job_that_saves_when_told_has_only_those_checkpoints(one_group):
    script = [GO, SAVE, GO, SAVE, GO, STOP, SAVE, GO]
    detector = ScriptedDetector({"a": [G] * 8}, {"a": 50})
    group = score(one_group, play(one_group, detector, ScriptedPolicy(script))).groups[0]
    assert group.at_stop.step == 50
    assert group.of_told is not None
    assert group.of_told.step == 60, "50 was never saved; of 20, 40, 60 the newest"


def test_a_run_never_stopped_ends_with_its_last_checkpoint_saved(one_group):
    detector = ScriptedDetector({"a": [G] * 8})
    result = score(one_group, play(one_group, detector, ScriptedPolicy([GO, SAVE] + [GO] * 6)))
    group = result.groups[0]
    assert result.stop_step is None
    assert result.saved == 0
    assert group.of_told is not None
    assert group.at_stop.step == group.at_end.step == group.of_told.step == 80


def test_a_stop_before_a_group_learned_cuts_it_off(make_run):
    run = make_run({"early": [0.6] * 8, "late": ACCURACY})
    detector = ScriptedDetector({"early": [D] * 8, "late": [M] * 8})
    result = score(run, play(run, detector, ScriptedPolicy([GO, GO, STOP, *[GO] * 5])))
    assert [group.cut_off for group in result.groups] == [False, True]
    numbers = summarize([result])
    assert numbers["cut_off"] == 1
    assert numbers["found"] == 1
    assert numbers["saved"] == pytest.approx(5 / 8)


def test_one_checkpoint_for_all_groups_is_the_overall_choice(make_run):
    run = make_run({"a": ACCURACY, "b": ACCURACY[::-1]})
    detector = ScriptedDetector({"a": [G] * 8, "b": [G] * 8}, {"a": 70, "b": 20, None: 40})
    groups = score(run, play(run, detector, ScriptedPolicy([GO] * 8))).groups
    assert [group.at_stop.step for group in groups] == [70, 20]
    assert [group.for_all.step for group in groups if group.for_all] == [40, 40]


def test_a_detector_that_ranks_nothing_leaves_the_newest(one_group):
    class Mute(ScriptedDetector):
        def rank(self, checkpoints, group):
            return []

    outcome = play(one_group, Mute({"a": [M] * 8}), ScriptedPolicy([GO, GO, STOP, *[GO] * 5]))
    assert outcome.groups["a"].chosen_at_stop == 2
    assert outcome.groups["a"].chosen_at_end == 7
