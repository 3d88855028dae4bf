"""What stoppers know of runs: fresh enough, seldom asked for, and nothing where nobody answers."""

from __future__ import annotations

import logging
import os
import pickle
import signal as signals_of_processes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from scripted_server import ScriptedServer, scripted_server
from server_process import ServerProcess

from pathwatch.client import Client, Credentials
from pathwatch.integrations.signals import Signals, signals
from pathwatch.v1 import signal_pb2

STOP = signal_pb2.ACTION_STOP


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are waited for, however slow the machine is."""
    monkeypatch.setattr(signals, "ANSWER_SECONDS", 60.0)


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    with scripted_server() as said:
        yield said


@pytest.fixture
def elapse(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets seconds pass for who asks; no others do."""
    passed = 0.0

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return passed

    def elapse(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    monkeypatch.setattr(signals, "time", Clock)
    return elapse


def test_the_newest_signal_is_had_at_most_once_a_second(
    scripted: ScriptedServer, elapse: Callable[[float], None]
) -> None:
    asked = Signals(scripted.address)
    scripted.say("CONTINUE")
    said = [asked.newest("pair") for _ in range(5)]
    assert [signal.action for signal in said if signal] == [signal_pb2.ACTION_CONTINUE] * 5
    assert scripted.asked == 1
    scripted.say("STOP", math="GENERALIZED")
    elapse(1.1)
    signal = asked.newest("pair")
    assert signal is not None
    assert (signal.action, signal.stop_at_step) == (STOP, 101)


def test_of_several_servers_whoever_answers_is_asked(free_port: int, scripted: ScriptedServer) -> None:
    scripted.say("STOP", math="GENERALIZED")
    signal = Signals(f"127.0.0.1:{free_port},{scripted.address}").newest("pair")
    assert signal is not None
    assert signal.action == STOP


def test_a_run_that_has_not_begun_is_no_error(
    scripted: ScriptedServer, elapse: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    asked = Signals(scripted.address)
    assert asked.newest("later") is None
    scripted.say("STOP")
    signal = asked.newest("pair")
    assert signal is not None
    assert signal.action == STOP
    assert not caplog.records


def test_a_run_that_stays_away_is_named_once(
    scripted: ScriptedServer, elapse: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    asked = Signals(scripted.address)
    for _ in range(10):
        assert asked.newest("pear") is None
        elapse(signals.STRANGE_SECONDS / 3)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "knows no run 'pear'" in caplog.text


def test_a_server_that_is_away_is_one_warning_and_asked_again(
    free_port: int, elapse: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    address = f"127.0.0.1:{free_port}"
    asked = Signals(address)
    for _ in range(4):
        assert asked.newest("pair") is None
        assert asked.newest("other") is None
        elapse(signals.REST_SECONDS + 1)
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert f"pathwatch stops nothing for now: no pathwatch server at {address}" in warning.getMessage()
    with scripted_server(address) as scripted:
        scripted.say("STOP")
        signal = asked.newest("pair")
        assert signal is not None
        assert signal.action == STOP
    elapse(signals.REST_SECONDS + 1)
    assert asked.newest("pair") is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


def test_a_frozen_server_is_waited_for_once_in_a_while(
    tmp_path: Path, elapse: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "ANSWER_SECONDS", 0.3)
    waited: list[tuple[str, float]] = []

    def connect(server: str, **options: Any) -> Client:
        waited.append((server, options["timeout"]))
        return Client(server, **options)

    monkeypatch.setattr(signals, "Client", connect)
    server = ServerProcess(tmp_path)
    try:
        os.kill(server.pid, signals_of_processes.SIGSTOP)
        asked = Signals(server.address)
        for _ in range(50):
            assert asked.newest("pair") is None
            elapse(1.1)
    finally:
        server.kill()
    # At first, and after the rest.
    assert waited == [(server.address, 0.3)] * 2


def test_whatever_goes_wrong_with_credentials_stops_nothing(
    scripted: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.say("STOP")
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    for credentials in (
        Credentials(token_file=tmp_path / "token"),
        Credentials(token_file=tmp_path / "none"),
        Credentials(root_ca=tmp_path / "none"),
    ):
        assert Signals(scripted.address, credentials).newest("pair") is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3


@pytest.mark.parametrize("name", [17, None, b"pair", ["pair"], "\ud800", "in valid", "another's"])
def test_a_run_that_cannot_be_asked_about_leaves_the_others_alone(
    scripted: ScriptedServer,
    elapse: Callable[[float], None],
    caplog: pytest.LogCaptureFixture,
    name: Any,
) -> None:
    """Names come from functions and attributes of whoever searches."""
    scripted.refused = {
        "in valid": grpc.StatusCode.INVALID_ARGUMENT,
        "another's": grpc.StatusCode.PERMISSION_DENIED,
    }
    scripted.say("STOP")
    asked = Signals(scripted.address)
    for _ in range(3):
        assert asked.newest(name) is None
        signal = asked.newest("pair")
        assert signal is not None
        assert signal.action == STOP
        elapse(signals.REST_SECONDS + 1)
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert warning.getMessage().startswith(f"pathwatch does not stop run {name!r}: ")


def test_a_run_that_is_refused_is_asked_about_seldom_and_named_again_after_an_answer(
    scripted: ScriptedServer, elapse: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    asked = Signals(scripted.address)
    scripted.say("STOP")
    for outage in (1, 2):
        scripted.refused = {"pair": grpc.StatusCode.PERMISSION_DENIED}
        before = scripted.asked
        for _ in range(10):
            assert asked.newest("pair") is None
            elapse(signals.REST_SECONDS * 0.13)
        assert scripted.asked == before + 2
        assert [record.getMessage() for record in caplog.records] == [
            "pathwatch does not stop run 'pair': run 'pair' is refused"
        ] * outage
        scripted.refused = {}
        elapse(signals.REST_SECONDS + 1)
        assert asked.newest("pair") is not None
        elapse(signals.FRESH_SECONDS + 1)


def test_server_and_token_come_from_the_environment(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.say("STOP")
    monkeypatch.setenv("PATHWATCH_SERVER", scripted.address)
    assert Signals().newest("pair") is not None
    monkeypatch.setenv("PATHWATCH_TOKEN", "no token\n at all")
    assert Signals().newest("pair") is None
    assert "token" in caplog.text


def test_pickled_it_asks_anew(scripted: ScriptedServer) -> None:
    asked = Signals(scripted.address, Credentials(token="abc"))  # noqa: S106
    scripted.say("CONTINUE")
    assert asked.newest("pair") is not None
    scripted.say("STOP")
    signal = pickle.loads(pickle.dumps(asked)).newest("pair")  # noqa: S301
    assert signal.action == STOP
