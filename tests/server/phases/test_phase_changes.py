"""Every phase and every change between phases, on made-up runs."""

import pytest

from pathwatch.server.phases.detector import PathwayDropDetector
from pathwatch.server.phases.verdict import Checkpoint, Phase


def played(play, history, windows, group="g"):
    """Phases in order, without steps."""
    detector = PathwayDropDetector()
    steps = [next(iter(round_.values())).step for round_ in windows]
    rounds = [{name: detector.measure(w) for name, w in round_.items()} for round_ in windows]
    return [phase for phase, _ in history(play(steps, rounds, detector), group)]


def ramp(t, start, end, before, after):
    """`before` until `start`, then in equal steps to `after` at `end`."""
    return before + (after - before) * min(max((t - start) / (end - start), 0.0), 1.0)


def grokking(make_window, points=80, **changes):
    """Memorized by point 3; sharing grows from point 25 to 40."""
    return [
        {
            "g": make_window(
                10 * t,
                shared=ramp(t, 25, 40, 0.3, 1.5),
                own=ramp(t, 25, 40, 1.0, 0.3),
                loss=3.0 if t < 3 else 0.05,
                **changes,
            )
        }
        for t in range(points)
    ]


def test_a_run_that_groks_passes_through_all_phases(make_window, play, history):
    assert played(play, history, grokking(make_window)) == [
        Phase.UNKNOWN,
        Phase.LEARNING,
        Phase.MEMORIZED,
        Phase.GENERALIZING,
        Phase.GENERALIZED,
    ]


def test_a_run_that_only_memorizes_stays_memorized(make_window, play, history):
    windows = [{"g": make_window(10 * t, loss=3.0 if t < 3 else 0.05)} for t in range(120)]
    assert played(play, history, windows)[-1] is Phase.MEMORIZED
    assert Phase.GENERALIZING not in played(play, history, windows)


def test_sharing_before_the_loss_is_low_is_only_learning(make_window, play, history):
    windows = [{"g": make_window(10 * t, shared=ramp(t, 10, 20, 0.3, 1.5), loss=2.0)} for t in range(60)]
    assert played(play, history, windows) == [Phase.UNKNOWN, Phase.LEARNING]


def test_sharing_that_is_lost_again_is_withdrawn(make_window, play, history):
    windows = [
        {"g": make_window(10 * t, shared=0.8 if 25 <= t < 33 else 0.3, loss=3.0 if t < 3 else 0.05)}
        for t in range(60)
    ]
    phases = played(play, history, windows)
    assert phases[-2:] == [Phase.GENERALIZING, Phase.MEMORIZED]


def test_a_loss_that_blows_up_after_sharing_is_regressing_and_can_recover(make_window, play, history):
    def loss(t):
        return 3.0 if t < 3 or 60 <= t < 70 else 0.05

    windows = grokking(make_window, points=60) + [
        {"g": make_window(10 * t, shared=1.5, own=0.3, loss=loss(t))} for t in range(60, 100)
    ]
    phases = played(play, history, windows)
    assert phases[phases.index(Phase.REGRESSING) - 1] is Phase.GENERALIZED
    assert phases[-1] is Phase.GENERALIZED


def test_after_a_collapse_a_checkpoint_from_before_it_is_best(make_window, play):
    detector = PathwayDropDetector()
    windows = grokking(make_window, points=60) + [
        {"g": make_window(10 * t, shared=0.3, loss=3.0)} for t in range(60, 70)
    ]
    steps = [round_["g"].step for round_ in windows]
    play(steps, [{"g": detector.measure(round_["g"])} for round_ in windows], detector)
    best = detector.rank([Checkpoint(step=step, tag="", attempt=0) for step in steps], "g")
    assert 250 <= best[0].checkpoint.step < 580
    assert best[0].score == pytest.approx(0.0)


def test_a_group_dragged_along_by_another_is_not_said_to_generalize(make_window, play, history):
    windows = [
        {
            "real": make_window(
                10 * t,
                group="real",
                shared=ramp(t, 25, 40, 0.3, 2.5),
                own=ramp(t, 25, 40, 1.0, 0.1),
                loss=3.0 if t < 3 else 0.05,
            ),
            "dragged": make_window(
                10 * t,
                group="dragged",
                seed=1,
                shared=ramp(t, 30, 45, 0.3, 1.0),
                loss=3.0 if t < 3 else 0.05,
            ),
        }
        for t in range(80)
    ]
    assert played(play, history, windows, "real")[-1] is Phase.GENERALIZED
    assert Phase.GENERALIZING not in played(play, history, windows, "dragged")
    alone = [{"dragged": round_["dragged"]} for round_ in windows]
    assert Phase.GENERALIZING in played(play, history, alone, "dragged")


def test_unseen_loss_that_rises_is_overfitting_and_that_falls_again_is_not(make_window, play, history):
    def unseen(t):
        return ramp(t, 0, 20, 3.0, 2.0) if t < 20 else ramp(t, 20, 40, 2.0, 3.0) if t < 45 else 1.5

    windows = [
        {"g": make_window(10 * t, loss=3.0 if t < 3 else 0.8, unseen_loss=unseen(t))} for t in range(60)
    ]
    assert played(play, history, windows) == [
        Phase.UNKNOWN,
        Phase.LEARNING,
        Phase.OVERFITTING,
        Phase.LEARNING,
    ]


def test_overfitting_is_said_even_of_a_group_whose_routing_is_shared(make_window, play, history):
    windows = grokking(make_window, unseen_loss=2.0)
    rising = [
        {"g": make_window(10 * t, shared=1.5, own=0.3, unseen_loss=ramp(t, 80, 100, 2.0, 4.0))}
        for t in range(80, 110)
    ]
    assert played(play, history, windows + rising)[-1] is Phase.OVERFITTING


def test_a_group_missing_from_a_round_keeps_its_verdict(make_window, play):
    detector = PathwayDropDetector()
    rounds = [
        {name: detector.measure(make_window(10 * t, group=name)) for name in ("a", "b")} for t in range(20)
    ]
    for round_ in rounds[12:]:
        del round_["b"]
    verdicts = play([10 * t for t in range(20)], rounds, detector)
    assert verdicts[-1]["b"] == verdicts[11]["b"]
    assert set(verdicts[-1]) == {"a", "b"}


def test_too_few_samples_and_missing_losses_leave_routing_unjudged(make_window, play, history):
    few = [{"g": make_window(10 * t, samples=10, loss=3.0 if t < 3 else 0.05)} for t in range(60)]
    assert played(play, history, few)[-1] is Phase.MEMORIZED
    windows = grokking(make_window)
    for round_ in windows:
        round_["g"].losses_N[:] = float("nan")
    assert played(play, history, windows) == [Phase.UNKNOWN, Phase.LEARNING]


def test_changing_samples_every_window_are_judged_too(make_window, play, history):
    """Stream mode: other samples in each window, those of one target still alike."""
    windows = grokking(make_window)
    for t, round_ in enumerate(windows):
        round_["g"].sample_ids_N[:] += 1000 * t
    phases = played(play, history, windows)
    assert phases[-1] is Phase.GENERALIZED


def test_steps_must_rise():
    detector = PathwayDropDetector()
    detector.update(10, {})
    with pytest.raises(ValueError, match="step 10 after one at step 10"):
        detector.update(10, {})


def test_nothing_is_ranked_before_a_round_or_for_an_unknown_group(make_window):
    detector = PathwayDropDetector()
    checkpoint = Checkpoint(step=0, tag="", attempt=0)
    assert detector.rank([checkpoint], None) == []
    detector.update(5, {"g": detector.measure(make_window(5))})
    assert detector.rank([checkpoint], "other") == []
    assert [place.checkpoint for place in detector.rank([checkpoint], "g")] == [checkpoint]
    assert detector.rank([Checkpoint(step=6, tag="", attempt=0)], "g") == []
