"""Servers that share a Redis: who is asked for another's run says whose it is; the next goes on with it."""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from redis_process import RedisProcess

from pathwatch.v1 import routing_pb2, run_pb2, signal_pb2

A, B = "a.example:1", "b.example:2"
NO_TIME = b'[false, 0, 0, 0, 0, 1, [], "yesterday", 0]'
"""A run's row that can be read as JSON, and makes no sense."""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    server = RedisProcess(tmp_path_factory.mktemp("redis"), appendfsync="no")
    yield server
    server.kill()


@pytest.fixture
def shard(redis: RedisProcess, tmp_path: Path, serve: Callable[..., Any]) -> Callable[..., Any]:
    """Starts a server that others reach, as far as it knows, at this address; no lease runs out by itself."""
    with redis.client() as client:
        client.flushall()
    return lambda own, **options: serve(
        data=tmp_path / own.partition(".")[0], store=redis.url, shard=own, lease_seconds=120, **options
    )


def sent_on(error: grpc.RpcError) -> str:
    """To whom a call is sent on."""
    assert error.code() is grpc.StatusCode.UNAVAILABLE, error
    owner = dict(error.trailing_metadata())["pathwatch-owner"]
    assert f"is served by {owner}; connect there" in error.details()
    return str(owner)


def calls(service: Any, run: str = "run") -> dict[str, Callable[..., Any]]:
    """Every call about a run; each takes metadata."""
    runs, signals = service.runs, service.signals
    topology = run_pb2.Topology(layers=2, experts=4)
    config = run_pb2.RunConfig(topology=topology)
    checkpoint = run_pb2.Checkpoint(step=1)
    requests: dict[str, tuple[Any, Any]] = {
        "create": (runs.CreateRun, run_pb2.CreateRunRequest(name=run, config=config)),
        "get": (runs.GetRun, run_pb2.GetRunRequest(name=run)),
        "finish": (runs.FinishRun, run_pb2.FinishRunRequest(name=run)),
        "delete": (runs.DeleteRun, run_pb2.DeleteRunRequest(name=run)),
        "register": (
            runs.RegisterCheckpoint,
            run_pb2.RegisterCheckpointRequest(run=run, checkpoint=checkpoint),
        ),
        "rank": (runs.RankCheckpoints, run_pb2.RankCheckpointsRequest(run=run)),
        "signal": (signals.GetSignal, signal_pb2.GetSignalRequest(run=run)),
        "metrics": (signals.GetMetrics, signal_pb2.GetMetricsRequest(run=run)),
        "watch": (signals.WatchSignals, signal_pb2.WatchSignalsRequest(run=run)),
        "observations": (signals.GetObservations, signal_pb2.GetObservationsRequest(run=run)),
    }

    def call(method: Any, request: Any) -> Callable[..., Any]:
        def make(metadata: Any = ()) -> Any:
            answer = method(request, metadata=metadata, timeout=60)
            return next(answer) if isinstance(answer, grpc.RpcContext) else answer

        return make

    return {name: call(*what) for name, what in requests.items()}


def windows(service: Any) -> list[signal_pb2.Window]:
    return list(service.signals.GetMetrics(signal_pb2.GetMetricsRequest(run="run"), timeout=60).windows)


def signal(service: Any) -> signal_pb2.Signal:
    return service.signals.GetSignal(signal_pb2.GetSignalRequest(run="run"), timeout=60).signal


def series(service: Any, name: str) -> float | None:
    with urllib.request.urlopen(f"http://{service.http_address}/metrics", timeout=60) as page:
        found = text_string_to_metric_families(page.read().decode())
        return next((s.value for family in found for s in family.samples if s.name == name), None)


def test_every_call_about_another_s_run_is_sent_on(shard: Callable[..., Any]) -> None:
    first, second = shard(A), shard(B)
    first.create()
    for name, call in calls(second).items():
        with pytest.raises(grpc.RpcError) as error:
            call()
        assert (name, sent_on(error.value)) == (name, A)
    stream = second.stream()
    stream.hello()
    assert sent_on(stream.error()) == A
    second.create("other")
    for service in (first, second):
        listed = service.runs.ListRuns(run_pb2.ListRunsRequest(), timeout=60).runs
        assert sorted(run.name for run in listed) == ["other", "run"]
        assert listed[0].config.topology.layers == 2
        assert series(service, "pathwatch_owned_runs") == 1
        finished = run_pb2.ListRunsRequest(state=run_pb2.RUN_STATE_FINISHED)
        assert not service.runs.ListRuns(finished, timeout=60).runs


@pytest.mark.slow
def test_what_one_has_drained_the_next_goes_on_with(
    shard: Callable[..., Any], make_batch: Any, eventually: Any
) -> None:
    first, second = shard(A), shard(B)
    first.create()
    stream = first.stream()
    stream.hello()
    for step in (10, 20):
        stream.send(make_batch(step))
        stream.send(routing_pb2.Watermark(step=step))
    stream.await_ack(stream.send(make_batch(30)))
    eventually(lambda: first.get().closed_step == 20)
    before = (first.get(), windows(first), signal(first))
    with pytest.raises(grpc.RpcError):
        second.get()
    first.drain()

    def taken() -> bool:
        """A refusal may be remembered for a moment."""
        try:
            return bool(second.get())
        except grpc.RpcError as error:
            return not sent_on(error)

    eventually(taken)
    assert (second.get(), windows(second), signal(second)) == before
    again = second.stream()
    again.hello()
    again.sequence = stream.sequence
    again.await_ack(again.send(routing_pb2.Watermark(step=30)))
    eventually(lambda: second.get().closed_step == 30)
    assert [(w.step, w.metrics["window_samples"]) for w in windows(second)] == [(10, 8), (20, 8), (30, 8)]
    assert signal(second).revision == before[2].revision + 1


def test_who_has_lost_a_run_sends_its_ranks_and_watchers_on(
    shard: Callable[..., Any], redis: RedisProcess, make_batch: Any, eventually: Any
) -> None:
    """As a server that was paused for longer than its lease finds it."""
    service = shard(A)
    service.create()
    stream = service.stream()
    stream.hello()
    stream.await_ack(stream.send(make_batch(10)))
    watch = service.signals.WatchSignals(signal_pb2.WatchSignalsRequest(run="run"), timeout=60)
    next(watch)
    with redis.client() as client:
        client.hset("pathwatch:{run}:lease", mapping={"epoch": "7-else", "owner": B, "until": 10**14})
        mark = client.get("pathwatch:{run}:commits")
    stream.send(make_batch(20))
    assert sent_on(stream.error()) == B
    assert max(response.acked_sequence for response in stream.responses) == 1
    with pytest.raises(grpc.RpcError) as error:
        list(watch)
    assert sent_on(error.value) == B
    with pytest.raises(grpc.RpcError) as error:
        service.get()
    assert sent_on(error.value) == B
    assert series(service, "pathwatch_lease_losses_total") == 1
    assert series(service, "pathwatch_owned_runs") == 0
    with redis.client() as client:
        assert client.get("pathwatch:{run}:commits") == mark, "nothing of it was written any more"


def test_who_has_lost_a_run_to_nobody_knows_whom_says_that_it_moves(
    shard: Callable[..., Any], redis: RedisProcess, make_batch: Any
) -> None:
    """As where the other server has let go of it by then."""
    service = shard(A)
    service.create()
    stream = service.stream()
    stream.hello()
    stream.await_ack(stream.send(make_batch(10)))
    with redis.client() as client:
        client.hset("pathwatch:{run}:lease", mapping={"epoch": "7-else", "owner": "", "until": 0})
    stream.send(make_batch(20))
    error = stream.error()
    assert error.code() is grpc.StatusCode.UNAVAILABLE, error
    assert error.details() == "run 'run' is another server's; connect again"
    assert dict(error.trailing_metadata())["pathwatch-owner"] == ""


def test_what_redis_holds_is_not_mended_as_a_data_folder_is(
    shard: Callable[..., Any], redis: RedisProcess
) -> None:
    first = shard(A)
    first.create()
    first.drain()
    with redis.client() as client:
        client.hset("pathwatch:{run}:run", "config", b"\xff\xff")
    with pytest.raises(grpc.RpcError) as error:
        shard(B).get()
    assert error.value.code() is grpc.StatusCode.INTERNAL
    assert "run 'run' cannot be taken up again (DecodeError: " in error.value.details()
    assert "restore a backup of what Redis keeps on disk" in error.value.details()
    assert "fsck" not in error.value.details()


def test_runs_that_cannot_be_read_are_left_out_of_the_list(
    shard: Callable[..., Any], redis: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = shard(A), shard(B)
    damaged = {
        "no-row": ("row", b"garbage"),
        "no-config": ("config", b"\xff\xff"),
        "no-time": ("row", NO_TIME),
    }
    for name in (*damaged, "good"):
        first.create(name)
    with redis.client() as client:
        for name, (field, value) in damaged.items():
            client.hset(f"pathwatch:{{{name}}}:run", field, value)

        def listed(service: Any) -> list[str]:
            return sorted(
                run.name for run in service.runs.ListRuns(run_pb2.ListRunsRequest(), timeout=60).runs
            )

        def said() -> list[str]:
            left_out = (one for one in caplog.records if "is left out of lists" in one.getMessage())
            return sorted(record.run for record in left_out)

        assert [listed(second) for _ in range(3)] == [["good"]] * 3
        assert said() == sorted(damaged)
        assert listed(first) == sorted([*damaged, "good"])
        client.hset("pathwatch:{no-config}:run", "config", b"")
        assert listed(second) == ["good", "no-config"]
        client.hset("pathwatch:{no-config}:run", "config", b"\xff\xff")
        assert listed(second) == ["good"]
        assert said() == sorted([*damaged, "no-config"])


def test_who_may_not_use_a_run_does_not_make_anybody_take_it(
    shard: Callable[..., Any], redis: RedisProcess, tmp_path: Path, make_stream: Callable[..., Any]
) -> None:
    tokens = tmp_path / "tokens.yaml"
    digest = hashlib.sha256(b"secret").hexdigest()
    scopes = ["ingest", "read", "control"]
    tokens.write_text(yaml.safe_dump([{"name": "t", "sha256": digest, "scopes": scopes, "runs": ["theirs"]}]))
    tokens.chmod(0o600)
    first = shard(A)
    first.create()
    first.drain()
    second = shard(B, tokens=tokens)
    bearer = (("authorization", "Bearer secret"),)
    for metadata, code in (
        (bearer, grpc.StatusCode.PERMISSION_DENIED),
        ((), grpc.StatusCode.UNAUTHENTICATED),
    ):
        for name, call in calls(second).items():
            with pytest.raises(grpc.RpcError) as error:
                call(metadata)
            assert (name, error.value.code()) == (name, code)
        stream = make_stream(second.channel, metadata)
        stream.hello()
        assert stream.error().code() is code
    with redis.client() as client:
        assert client.hget("pathwatch:{run}:lease", "owner") == b""
    assert series(second, "pathwatch_owned_runs") == 0
