"""`gate`: exit codes that Slurm and CI act on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from pathwatch.server.cli import gate
from pathwatch.v1 import run_pb2


@pytest.fixture
def passes(command: Callable[..., Result], scripted: Any) -> Callable[..., Result]:
    def run(*options: object) -> Result:
        return command("gate", "pair", "--server", scripted.address, *options)

    return run


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "POLL_SECONDS", 0.01)


def test_reached_at_once(passes: Callable[..., Result], scripted: Any) -> None:
    scripted.say("CONTINUE", math="GENERALIZED", code="GENERALIZED")
    result = passes("--until", "generalized", "--timeout", 0)
    assert result.exit_code == 0
    assert "pair: generalized reached at step 100" in result.stderr


def test_every_group_counts_without_one_named(passes: Callable[..., Result], scripted: Any) -> None:
    scripted.say("CONTINUE", math="GENERALIZED", code="MEMORIZED")
    late = passes("--until", "generalized", "--timeout", 0.05)
    assert late.exit_code == 3
    assert "not reached in time at step 100 (CONTINUE; code MEMORIZED, math GENERALIZED)" in late.stderr
    assert passes("--until", "generalized", "--group", "math", "--timeout", 0.05).exit_code == 0
    assert passes("--until", "generalized", "--group", "code", "--timeout", 0.05).exit_code == 3


def test_a_group_nobody_saw_is_not_reached(passes: Callable[..., Result], scripted: Any) -> None:
    assert passes("--until", "generalized", "--timeout", 0).exit_code == 3
    scripted.say("CONTINUE", math="GENERALIZED")
    late = passes("--until", "generalized", "--group", "poetry", "--timeout", 0)
    assert late.exit_code == 3
    assert "poetry UNKNOWN" in late.stderr


def test_it_waits_until_it_is_so(passes: Callable[..., Result], scripted: Any) -> None:
    asked = 0

    def goes_on(server: Any) -> None:
        nonlocal asked
        asked += 1
        if asked == 5:
            server.say("STOP", math="GENERALIZED")

    scripted.say("CHECKPOINT", math="GENERALIZING")
    scripted.then = goes_on
    result = passes("--until", "stop", "--json")
    assert result.exit_code == 0
    assert asked == 5
    said = json.loads(result.stdout)
    assert (said["action"], said["stop_at_step"], said["reached"]) == ("STOP", 101, True)
    assert said["groups"]["math"]["phase"] == "GENERALIZED"


def test_a_finished_run_is_not_waited_for(passes: Callable[..., Result], scripted: Any) -> None:
    scripted.say("CONTINUE", math="MEMORIZED")
    scripted.run.state = run_pb2.RUN_STATE_FINISHED
    result = passes("--until", "stop")
    assert result.exit_code == 3
    assert "not reached, the run is finished" in result.stderr


def test_the_signal_of_a_finishing_run_is_not_missed(passes: Callable[..., Result], scripted: Any) -> None:
    """The state is read before the signal: a last signal given in between still counts."""
    scripted.run.state = run_pb2.RUN_STATE_FINISHED
    scripted.then = lambda server: server.say("STOP", math="GENERALIZED")
    assert passes("--until", "stop").exit_code == 0


def test_what_was_reached_before_the_run_fell_silent_was_reached(
    passes: Callable[..., Result], scripted: Any
) -> None:
    scripted.say("CONTINUE", math="GENERALIZED")
    scripted.history.signals.append(scripted.signal)
    scripted.say("CONTINUE", math="UNKNOWN")
    scripted.signal.stale = True
    assert passes("--until", "generalized", "--timeout", 0).exit_code == 0
