"""When a signal is a new one, and what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pathwatch.server.engine.judge import Judgement
from pathwatch.server.engine.signals import first_signal, next_signal, stale_signal, standing_still
from pathwatch.server.phases.verdict import Action, Decision, GroupVerdict, Phase
from pathwatch.v1 import signal_pb2

BEFORE = first_signal("run", 1_700_000_000.0)


def judgement(
    step: int = 10,
    action: Action = Action.CONTINUE,
    reason: str = "why",
    phase: Phase = Phase.LEARNING,
    best: int | None = None,
) -> Judgement:
    verdict = GroupVerdict(phase=phase, since_step=5, reason="because", numbers={"x": 1.5})
    return Judgement(
        step=step,
        verdicts={"math": verdict},
        decision=Decision(action=action, reason=reason),
        best_step=best,
        best_step_by_group={} if best is None else {"math": best},
    )


def after(
    previous: signal_pb2.Signal, judged: Judgement, newest_step: int = 10, margin: int = 1, **more: bool
) -> signal_pb2.Signal:
    return next_signal(
        previous, judged, newest_step=newest_step, stop_margin_steps=margin, now=1_700_000_050.0, **more
    )


def test_before_any_verdict_a_run_goes_on() -> None:
    assert (BEFORE.action, BEFORE.step, BEFORE.revision) == (signal_pb2.ACTION_CONTINUE, -1, 1)
    assert not BEFORE.HasField("stop_at_step")
    assert not BEFORE.HasField("best_checkpoint_step")
    assert BEFORE.created_at.seconds == 1_700_000_000


def test_it_carries_verdicts_and_evidence() -> None:
    signal = after(BEFORE, judgement(best=7))
    (status,) = signal.groups
    assert (status.group, status.phase, status.since_step) == ("math", signal_pb2.PHASE_LEARNING, 5)
    assert (status.reason, dict(status.evidence), status.best_checkpoint_step) == ("because", {"x": 1.5}, 7)
    assert (signal.step, signal.reason, signal.best_checkpoint_step) == (10, "why", 7)
    assert signal.created_at.seconds == 1_700_000_050


@pytest.mark.parametrize(
    "changed",
    [
        judgement(reason="other"),
        judgement(action=Action.CHECKPOINT),
        judgement(action=Action.STOP),
        judgement(phase=Phase.MEMORIZED),
        judgement(best=3),
    ],
)
def test_what_a_run_acts_on_makes_a_new_revision(changed: Judgement) -> None:
    first = after(BEFORE, judgement())
    second = after(first, changed)
    assert (first.revision, second.revision) == (2, 3)


def test_new_numbers_alone_do_not() -> None:
    first = after(BEFORE, judgement())
    verdicts = {"math": replace(judgement().verdicts["math"], numbers={"x": 9.0})}
    second = after(first, replace(judgement(step=20), verdicts=verdicts))
    assert (second.revision, second.created_at) == (first.revision, first.created_at)
    assert (second.step, second.groups[0].evidence["x"]) == (20, 9.0)


def test_stop_is_in_the_future_and_stays_where_it_is() -> None:
    stop = after(BEFORE, judgement(action=Action.STOP), newest_step=17, margin=5)
    assert stop.stop_at_step == 22
    later = after(stop, judgement(step=20, action=Action.STOP), newest_step=21, margin=5)
    assert (later.stop_at_step, later.revision) == (22, stop.revision)
    withdrawn = after(later, judgement(step=30), newest_step=31)
    assert not withdrawn.HasField("stop_at_step")
    again = after(withdrawn, judgement(step=40, action=Action.STOP), newest_step=40, margin=0)
    assert again.stop_at_step == 41


def test_after_a_rewind_stop_is_fixed_anew() -> None:
    stop = after(BEFORE, judgement(step=50, action=Action.STOP), newest_step=50)
    rewound = after(stop, judgement(step=20, action=Action.STOP), newest_step=25, keep_stop=False)
    assert (rewound.stop_at_step, rewound.revision) == (26, stop.revision + 1)


def test_a_stale_signal_goes_on_unless_it_stops() -> None:
    saving = after(BEFORE, judgement(action=Action.CHECKPOINT))
    stale = stale_signal(saving, 1_700_000_000.0)
    assert (stale.stale, stale.action) == (True, signal_pb2.ACTION_CONTINUE)
    assert "2023-11-14" in stale.reason
    assert not saving.stale
    stop = stale_signal(after(BEFORE, judgement(action=Action.STOP)), 0.0)
    assert (stop.stale, stop.action, stop.reason, stop.stop_at_step) == (
        True,
        signal_pb2.ACTION_STOP,
        "why",
        11,
    )


def test_silence_makes_groups_unknown_and_names_where_they_stood() -> None:
    signal = stale_signal(after(BEFORE, judgement(phase=Phase.GENERALIZED, best=3)), 1_700_000_000.0)
    (status,) = signal.groups
    assert status.phase == signal_pb2.PHASE_UNKNOWN
    assert status.reason == "No data came since 2023-11-14 22:13:20 UTC; it was GENERALIZED since step 5."
    assert (signal.best_checkpoint_step, status.best_checkpoint_step) == (3, 3)


def test_after_a_stop_silence_is_what_was_asked_for() -> None:
    stopped = after(BEFORE, judgement(action=Action.STOP, phase=Phase.GENERALIZED))
    assert stale_signal(stopped, 0.0).groups == stopped.groups


@pytest.mark.parametrize(
    ("action", "kept"), [(Action.CHECKPOINT, Action.CONTINUE), (Action.STOP, Action.STOP)]
)
def test_a_run_that_cannot_be_judged_any_more_goes_on_unless_it_was_stopped(
    action: Action, kept: Action
) -> None:
    before = after(BEFORE, judgement(action=action, phase=Phase.GENERALIZING, best=3))
    signal = after(before, standing_still(before, "the detector is gone"))
    assert signal.action == kept.value
    assert signal.HasField("stop_at_step") == (kept is Action.STOP)
    (status,) = signal.groups
    assert (status.phase, status.since_step, status.reason) == (
        signal_pb2.PHASE_UNKNOWN,
        10,
        "the detector is gone",
    )
    assert (signal.best_checkpoint_step, status.best_checkpoint_step) == (3, 3)
    assert after(signal, standing_still(signal, "the detector is gone")) == signal
