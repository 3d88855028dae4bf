"""Calls other than streams of observations: passed on as they are, to the server that has the run."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ports import lasting_port
from relaying import HandRank
from server_process import ServerProcess
from standing_in import StandIn, serving

from pathwatch.client import Client, Credentials, PathwatchError
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import Limits, RelayConfig, ServerConfig
from pathwatch.server.relay import passing
from pathwatch.v1 import routing_pb2, run_pb2, run_pb2_grpc, signal_pb2, signal_pb2_grpc

MakeBatch = Callable[..., routing_pb2.ObservationBatch]
CONFIG = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4), keep_observations=True)


def test_everything_about_a_run_is_answered_as_by_its_server(setting: Any, make_batch: MakeBatch) -> None:
    with Client(setting.through) as through, Client(setting.direct) as direct:
        assert through.create_run("run", CONFIG).name == "run"
        sent = [make_batch(0), routing_pb2.Watermark(step=0), make_batch(1), routing_pb2.Watermark(step=1)]
        HandRank("run", 0, 1).send(setting.through, sent)
        through.register_checkpoint("run", step=1, tag="kept")
        assert through.finish_run("run").state == run_pb2.RUN_STATE_FINISHED
        for ask in (
            lambda client: client.get_run("run"),
            lambda client: list(client.list_runs()),
            lambda client: list(client.rank_checkpoints("run")),
            lambda client: client.get_signal("run"),
            lambda client: list(client.watch_signals("run", timeout=30)),
            lambda client: client.get_metrics("run"),
            lambda client: list(client.get_observations("run")),
            lambda client: list(client.validate_run("", CONFIG)),
        ):
            assert ask(through) == ask(direct)
        through.delete_run("run")
        assert list(direct.list_runs()) == []


def test_signals_are_heard_as_they_change(setting: Any, make_batch: MakeBatch) -> None:
    setting.create("run", mode=run_pb2.OBSERVATION_MODE_PROBE, window_steps=0)
    watching = signal_pb2_grpc.SignalServiceStub(setting.channel).WatchSignals(
        signal_pb2.WatchSignalsRequest(run="run"), timeout=60
    )
    assert next(watching).signal.revision == 1
    HandRank("run", 0, 1).send(setting.direct, [make_batch(0), routing_pb2.Watermark(step=0)])
    assert next(watching).signal.step == 0


def test_refusals_keep_code_words_and_details(start: Callable[..., Any]) -> None:
    setting = start(limits=Limits(runs=1))
    setting.create()
    said = []
    for address in (setting.through, setting.direct):
        with grpc.insecure_channel(address) as channel:
            request = run_pb2.CreateRunRequest(name="more", config=CONFIG)
            with pytest.raises(grpc.RpcError) as refused:
                run_pb2_grpc.RunServiceStub(channel).CreateRun(request, timeout=30)
            error: Any = refused.value
            details = dict(error.trailing_metadata())["grpc-status-details-bin"]
            said.append((error.code(), error.details(), b"google.rpc.RetryInfo" in details))
    assert said[0] == said[1]
    assert said[0][2]


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """Of a server that knows a job and a reader, whose secrets are their names."""
    path = tmp_path / "tokens.yaml"
    entries = [
        {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "scopes": scopes}
        for name, scopes in (("job", ["ingest"]), ("reader", ["read"]))
    ]
    path.write_text(yaml.safe_dump(entries))
    path.chmod(0o600)
    return path


def showing(name: str) -> Credentials:
    """The token of that name."""
    return Credentials(token=name)


def test_a_callers_token_goes_on(start: Callable[..., Any], tokens: Path, make_batch: MakeBatch) -> None:
    setting = start(tokens=tokens)
    with Client(setting.through, credentials=showing("job")) as client:
        client.create_run("run", CONFIG)
        with pytest.raises(PathwatchError, match="'job' has ingest") as refused:
            client.list_runs()
    assert refused.value.code is grpc.StatusCode.PERMISSION_DENIED
    with Client(setting.through, credentials=showing("reader")) as client:
        assert [run.name for run in client.list_runs()] == ["run"]
    with Client(setting.through) as client, pytest.raises(PathwatchError, match="bearer token"):
        client.get_run("run")
    bearer = (("authorization", "Bearer job"),)
    HandRank("run", 0, 1, metadata=bearer).send(setting.through, [make_batch(0)])
    with pytest.raises(grpc.RpcError) as closed:
        HandRank("run", 0, 1).send(setting.through, [make_batch(0)])
    assert closed.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_relay_may_have_a_token_of_its_own(start: Callable[..., Any], tokens: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("job\n")
    setting = start(tokens=tokens, relay_upstream_token_file=own)
    with Client(setting.through) as client:
        client.create_run("run", CONFIG)
        own.write_text("reader\n")
        assert [run.name for run in client.list_runs()] == ["run"]
        own.unlink()
        with pytest.raises(PathwatchError, match="token of the relay"):
            client.list_runs()


def test_a_relay_may_want_tokens_itself(start: Callable[..., Any], tokens: Path) -> None:
    setting = start(relay_tokens=tokens)
    with Client(setting.through) as client, pytest.raises(PathwatchError, match="bearer token"):
        client.list_runs()
    with Client(setting.through, credentials=showing("reader")) as client:
        assert list(client.list_runs()) == []


def test_a_run_is_followed_to_the_server_that_has_it() -> None:
    has, names = StandIn(), StandIn()
    with serving(has) as there, serving(names) as upstream:
        names.owner = there
        with BackgroundServer(RelayConfig(upstream=upstream)) as relay, Client(relay.grpc_address) as client:
            for _ in range(2):
                assert client.get_run("run").name == "run"
    assert (names.asked, has.asked) == (1, 2)


@pytest.mark.slow
def test_servers_that_name_each_other_are_asked_now_and_then_while_there_is_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patience = 3.0
    monkeypatch.setattr(passing, "_PATIENCE_SECONDS", patience)  # far less than the caller's
    one, other = StandIn(), StandIn()
    with serving(one) as here, serving(other) as there:
        one.owner, other.owner = there, here
        config = RelayConfig(upstream=here)
        with (
            BackgroundServer(config) as relay,
            grpc.insecure_channel(relay.grpc_address) as channel,
            pytest.raises(grpc.RpcError) as failed,
        ):
            run_pb2_grpc.RunServiceStub(channel).GetRun(run_pb2.GetRunRequest(name="run"), timeout=60)
    error: Any = failed.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    # Whoever calls a relay may not reach what is behind it.
    assert error.details() == "the run is being moved from one server to another; try again"
    assert dict(error.trailing_metadata())["pathwatch-owner"] == ""
    rounds = 1 + patience / 0.1  # the shortest wait
    assert one.asked + other.asked <= 6 * rounds


def test_where_one_server_is_away_the_next_is_asked() -> None:
    gone, has = f"127.0.0.1:{lasting_port()}", StandIn()
    with serving(has) as there:
        config = RelayConfig(upstream=f"{gone},{there}")
        with BackgroundServer(config) as relay, Client(relay.grpc_address) as client:
            assert client.get_run("run").name == "run"


@pytest.mark.slow
def test_without_a_server_calls_end_and_with_it_they_go_on(tmp_path: Path) -> None:
    servers = ServerProcess(tmp_path / "data")
    try:
        config = RelayConfig(upstream=servers.address)
        with BackgroundServer(config) as relay, grpc.insecure_channel(relay.grpc_address) as channel:
            runs = run_pb2_grpc.RunServiceStub(channel)
            runs.CreateRun(run_pb2.CreateRunRequest(name="run", config=CONFIG), timeout=30)
            servers.kill()
            with pytest.raises(grpc.RpcError) as away:
                runs.GetRun(run_pb2.GetRunRequest(name="run"), timeout=30)
            assert away.value.code() is grpc.StatusCode.UNAVAILABLE
            servers.start()
            # At once: it waits for nothing that gRPC waits for after failures.
            assert runs.GetRun(run_pb2.GetRunRequest(name="run"), timeout=30).run.name == "run"
    finally:
        servers.kill()


def test_a_relay_that_drains_says_so_and_ends_what_is_open(tmp_path: Path, make_batch: MakeBatch) -> None:
    with BackgroundServer(ServerConfig(data=tmp_path / "data")) as server:
        with Client(server.grpc_address) as client:
            client.create_run("run", CONFIG)
        relay = BackgroundServer(RelayConfig(upstream=server.grpc_address, drain_seconds=30))
        relay.__enter__()
        leaving = threading.Thread(target=relay.__exit__, args=(None, None, None))
        with grpc.insecure_channel(relay.grpc_address) as channel:
            health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
            assert next(health).status == health_pb2.HealthCheckResponse.SERVING
            watching = signal_pb2_grpc.SignalServiceStub(channel).WatchSignals(
                signal_pb2.WatchSignalsRequest(run="run"), timeout=60
            )
            next(watching)
            rank, over = HandRank("run", 0, 1), threading.Event()

            def leave(sequence: int) -> None:
                if sequence == 2:
                    while not rank.acked:  # what was read is acknowledged, also by a relay that leaves
                        time.sleep(0.002)
                    leaving.start()
                    assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
                    over.wait(60)  # what is written to a connection that is closed resets it, words and all

            with pytest.raises(grpc.RpcError) as ended:
                rank.send(relay.grpc_address, [make_batch(0), make_batch(1)], leave)
            over.set()
            with pytest.raises(grpc.RpcError) as unwatched:
                next(watching)
        leaving.join(60)
    for error in (ended.value, unwatched.value):
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in error.details()
