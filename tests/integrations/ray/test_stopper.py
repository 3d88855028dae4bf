"""The stopper: when it ends a trial, and when it leaves it alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ray import cloudpickle
from scripted_server import ScriptedServer, scripted_server

from pathwatch.integrations.ray import PathwatchStopper
from pathwatch.integrations.signals import signals


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.setattr(signals, "FRESH_SECONDS", 0.0)
    # However slow the machine is: after a question that failed nothing is asked for a while.
    monkeypatch.setattr(signals, "ANSWER_SECONDS", 60.0)
    with scripted_server() as said:
        yield said


def test_a_trial_whose_run_is_told_to_stop_ends(scripted: ScriptedServer) -> None:
    stopper = PathwatchStopper(scripted.address)
    for action in ("CONTINUE", "CHECKPOINT"):
        scripted.say(action, math="GENERALIZING")
        assert stopper("pair", {}) is False
    scripted.say("STOP", math="GENERALIZED")
    assert stopper("pair", {}) is True
    assert stopper("another", {}) is False
    assert stopper.stop_all() is False


def test_the_run_may_have_a_name_of_its_own(scripted: ScriptedServer) -> None:
    stopper = PathwatchStopper(scripted.address, run=lambda trial_id: trial_id.removeprefix("my-"))
    scripted.say("STOP")
    assert stopper("my-pair", {})


def test_with_steps_it_goes_on_to_the_step_of_the_stop(scripted: ScriptedServer) -> None:
    stopper = PathwatchStopper(scripted.address, time_attr="step")
    scripted.say("STOP")  # at step 101
    assert not stopper("pair", {"step": 100, "training_iteration": 500})
    assert not stopper("pair", {"training_iteration": 500})
    assert stopper("pair", {"step": 101, "training_iteration": 7})


def test_nothing_ends_while_nobody_answers(free_port: int, caplog: pytest.LogCaptureFixture) -> None:
    stopper = PathwatchStopper(f"127.0.0.1:{free_port}")
    assert not any(stopper("pair", {"training_iteration": n}) for n in range(20))
    assert len(caplog.records) == 1


def test_tune_may_pickle_it(scripted: ScriptedServer) -> None:
    """It does so to restore an experiment, with cloudpickle."""
    scripted.say("STOP")
    stopper = PathwatchStopper(scripted.address, run=lambda trial_id: "pair", time_attr="step")
    assert not stopper("x", {"step": 1})
    again = cloudpickle.loads(cloudpickle.dumps(stopper))
    assert not again("x", {"step": 1})
    assert again("x", {"step": 200})
