"""The detector on real runs that it did not see labels of."""

import io

import numpy as np
import pytest

from pathwatch.server.phases.detector import PathwayDropDetector
from pathwatch.server.phases.policies import AllGroups
from pathwatch.server.phases.verdict import Action, Checkpoint, Phase

GENERALIZES = [
    ("pair_s1", "add:0.6"),
    ("pair_s1", "sub:0.6"),
    ("ol_pair_s0", "add:0.6"),
    ("ol_pair_s0", "sub:0.6"),
]
ENDED = {Phase.GENERALIZING, Phase.GENERALIZED}


def checkpoints(run):
    return [Checkpoint(step=step, tag=f"step{step}", attempt=0) for step in run.steps]


def at(run, label, group, step):
    return run.smoothed(label, group)[run.steps.index(step)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "group"), GENERALIZES)
def test_sharing_is_seen_before_test_accuracy_has_risen(recorded, play, history, name, group):
    run = recorded(name)
    phases = history(play(run.steps, run.rounds), group)
    onset = dict(phases)[Phase.GENERALIZING]
    accuracy = run.smoothed("test_acc", group)
    assert onset <= run.steps[int(np.argmax(accuracy >= 0.5))]
    assert accuracy[run.steps.index(onset)] < 0.5
    assert phases[-1][0] in ENDED
    assert [phase for phase, _ in phases].count(Phase.GENERALIZING) == 1, "never withdrawn"


@pytest.mark.slow
def test_settled_only_when_test_accuracy_has(recorded, play, history):
    run = recorded("pair_s1")
    played = play(run.steps, run.rounds)
    for group in run.trace.groups:
        settled = dict(history(played, group))[Phase.GENERALIZED]
        assert at(run, "test_acc", group, settled) > 0.9


@pytest.mark.parametrize(("name", "group"), GENERALIZES)
def test_chosen_checkpoint_is_near_the_best_of_the_run(recorded, play, name, group):
    run = recorded(name)
    detector = PathwayDropDetector()
    play(run.steps, run.rounds, detector)
    chosen = detector.rank(checkpoints(run), group)[0].checkpoint.step
    assert at(run, "test_acc", group, chosen) > run.smoothed("test_acc", group).max() - 0.02


def test_groups_that_only_memorize_are_never_said_to_generalize(recorded, play, history):
    run = recorded("neg_rnd_s0")
    played = play(run.steps, run.rounds)
    for group in run.trace.groups:
        phases = {phase for phase, _ in history(played, group)}
        assert Phase.MEMORIZED in phases
        assert not phases & ENDED


@pytest.mark.parametrize("name", ["text_c_s0", "text_deferred_bS_s2"])
@pytest.mark.parametrize("visits", [True, False])
def test_text_is_never_said_to_generalize(recorded, play, history, name, visits):
    run = recorded(name, visits=visits)
    played = play(run.steps, run.rounds)
    for group in run.trace.groups:
        assert not {phase for phase, _ in history(played, group)} & ENDED
        if not visits:
            assert "no visits" in played[-1][group].reason


def test_overfitting_text_is_seen_soon_and_its_best_checkpoint_found(recorded, play, history):
    run = recorded("text_deferred_bS_s2")
    detector = PathwayDropDetector()
    played = play(run.steps, run.rounds, detector)
    for group in run.trace.groups:
        validation = run.labels["val_loss"][:, run.trace.groups.index(group)]
        said = dict(history(played, group))[Phase.OVERFITTING]
        assert said > run.steps[int(validation.argmin())]
        assert validation[run.steps.index(said)] < 1.2 * validation.min()
        chosen = detector.rank(checkpoints(run), group)[0].checkpoint.step
        assert validation[run.steps.index(chosen)] < 1.02 * validation.min()
        assert played[-1][group].phase is Phase.OVERFITTING, "stands after the samples are released"
    overall = detector.rank(checkpoints(run), None)[0].checkpoint.step
    mean = run.labels["val_loss"].mean(axis=1)
    assert mean[run.steps.index(overall)] < 1.02 * mean.min()


@pytest.mark.parametrize(
    ("name", "stops"),
    [("pair_s1", True), ("text_deferred_bS_s2", True), ("text_c_s0", False), ("neg_rnd_s0", False)],
)
def test_runs_stop_only_when_nothing_more_is_to_be_had(recorded, play, name, stops):
    run = recorded(name)
    policy = AllGroups()
    actions = [
        policy.decide(step, verdicts).action
        for step, verdicts in zip(run.steps, play(run.steps, run.rounds), strict=True)
    ]
    assert (Action.STOP in actions) is stops
    if stops:
        stop = actions.index(Action.STOP)
        assert stop < 0.75 * len(actions)
        assert Action.CHECKPOINT in actions[:stop]


@pytest.mark.parametrize("name", ["pair_s1", "text_deferred_bS_s2"])
def test_no_verdict_uses_what_comes_after_it(recorded, play, name):
    run = recorded(name)
    whole = play(run.steps, run.rounds)
    for cut in (len(whole) // 3, len(whole) // 2, len(whole) - 1):
        detector = PathwayDropDetector()
        assert play(run.steps[:cut], run.rounds[:cut], detector) == whole[:cut]
        best = detector.rank(checkpoints(run), None)
        assert max(place.checkpoint.step for place in best) <= run.steps[cut - 1]


@pytest.mark.parametrize("name", ["pair_s1", "text_deferred_bS_s2"])
def test_stored_evidence_rebuilds_the_same_verdicts(recorded, play, name):
    run = recorded(name)

    def stored(evidence):
        buffer = io.BytesIO()
        np.savez(buffer, **evidence)
        return dict(np.load(io.BytesIO(buffer.getvalue()), allow_pickle=False))

    again = [{group: stored(evidence) for group, evidence in round_.items()} for round_ in run.rounds]
    assert play(run.steps, again) == play(run.steps, run.rounds)


def test_verdicts_do_not_depend_on_the_unit_of_steps(recorded, play, history):
    run = recorded("pair_s1")
    played = play(run.steps, run.rounds)
    stretched = play([250 * step for step in run.steps], run.rounds)
    for group in run.trace.groups:
        expected = [(phase, 250 * since) for phase, since in history(played, group)]
        assert history(stretched, group) == expected


def test_a_model_that_has_not_moved_is_no_new_evidence(recorded, play, history):
    run = recorded("pair_s1")
    steps = [8 * step + repeat for step in run.steps for repeat in range(8)]
    repeated = play(steps, [round_ for round_ in run.rounds for _ in range(8)])
    played = play(run.steps, run.rounds)
    for group in run.trace.groups:
        expected = [(phase, 8 * since) for phase, since in history(played, group)]
        assert history(repeated, group) == expected


@pytest.mark.slow
@pytest.mark.parametrize("change", ["half the samples", "half the log points"])
def test_verdicts_survive_less_data(recorded, play, history, change):
    for name, generalizes in (("pair_s1", True), ("ol_pair_s0", True), ("neg_rnd_s0", False)):
        run = recorded(name, stride=2 if change == "half the samples" else 1)
        every = 2 if change == "half the log points" else 1
        played = play(run.steps[::every], run.rounds[::every])
        for group in run.trace.groups:
            assert (bool({phase for phase, _ in history(played, group)} & ENDED)) is generalizes


def test_a_group_is_judged_alike_without_the_others(recorded, play, history):
    run = recorded("pair_s1")
    together = play(run.steps, run.rounds)
    for group in run.trace.groups:
        alone = play(run.steps, [{group: round_[group]} for round_ in run.rounds])
        assert dict(history(alone, group)).keys() == dict(history(together, group)).keys()


@pytest.mark.slow
def test_without_targets_a_group_is_never_taken_as_finished(recorded, play, history):
    run = recorded("pair_s1", targets=False)
    played = play(run.steps, run.rounds)
    for group in run.trace.groups:
        phases = dict(history(played, group))
        assert Phase.GENERALIZING in phases
        assert Phase.GENERALIZED not in phases
    negative = recorded("neg_rnd_s0", targets=False)
    played = play(negative.steps, negative.rounds)
    for group in negative.trace.groups:
        assert not {phase for phase, _ in history(played, group)} & ENDED
