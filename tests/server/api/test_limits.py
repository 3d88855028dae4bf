"""Past every limit the caller hears RESOURCE_EXHAUSTED and when to come back, and everybody else goes on."""

from __future__ import annotations

import ast
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pathwatch.client.retry_info import is_lasting, retry_delay
from pathwatch.server.config import Limits
from pathwatch.server.config.limits import limit_problems
from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.v1 import routing_pb2, run_pb2, signal_pb2

Code = grpc.StatusCode
TESTS = Path(__file__).parents[2]

ELSEWHERE = {
    "sessions_per_rank": (
        "server/engine/test_engine.py",
        "test_of_a_rank_that_is_started_again_and_again_the_newest_sessions_stay",
    ),
    "unacked_bytes": ("server/api/test_flow.py", "test_room_goes_to_runs_in_turn"),
    "unacked_bytes_per_stream": ("server/api/test_flow.py", "test_a_stream_waits_for_its_own_acks"),
    "unjudged_rounds": (
        "server/engine/test_faulty_plugins.py",
        "test_acks_are_held_back_while_too_many_rounds_wait",
    ),
    "window_bytes": ("server/engine/test_kept_bytes.py", "test_runs_below_their_fair_share_still_grow"),
}
"""Limits tested beside what holds them: file and test."""
TOGETHER = {
    "layers": "test_what_a_run_may_ask_for",
    "experts": "test_what_a_run_may_ask_for",
    "capacity": "test_what_a_run_may_ask_for",
    "waiting_seconds": "test_limit_unacked_bytes_per_run",
}
"""Limits tested here under another's name."""


def refused(call: Callable[[], Any]) -> grpc.RpcError:
    """The error of a call past a limit, which says when to come back."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error = caught.value
    assert error.code() is Code.RESOURCE_EXHAUSTED, error.details()
    assert retry_delay(error) > 0
    return error


def ends(stream: Any) -> grpc.RpcError:
    """The error that ended a stream past a limit."""

    def read() -> None:
        raise stream.error()

    return refused(read)


def works(service: Any, make_batch: Any, run: str, **hello: Any) -> None:
    """A rank of the run still gets observations in."""
    stream = service.stream()
    stream.hello(run, **({"session": "works"} | hello))
    last = stream.send(make_batch(1, first_id=10_000))
    assert stream.await_ack(last) == []
    stream.finish()


def shaped(layers: int = 2, experts: int = 4, **more: Any) -> dict[str, Any]:
    return {"topology": run_pb2.Topology(layers=layers, experts=experts), **more}


def metric(service: Any, limit: str) -> float:
    """What /metrics counts of a limit."""
    return series(service, f'pathwatch_limit_refusals_total{{limit="{limit}"}}')


def series(service: Any, name: str) -> float:
    """A value of /metrics; 0 where it is not there."""
    with urllib.request.urlopen(f"http://{service.http_address}/metrics", timeout=30) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[-1])
    return 0.0


def checkpoint(service: Any, step: int, tag: str = "") -> Any:
    return service.runs.RegisterCheckpoint(
        run_pb2.RegisterCheckpointRequest(run="run", checkpoint=run_pb2.Checkpoint(step=step, tag=tag)),
        timeout=30,
    )


def test_every_limit_has_a_test() -> None:
    here = {name.removeprefix("test_limit_") for name in globals() if name.startswith("test_limit_")}
    assert set(TOGETHER.values()) <= globals().keys()
    assert here | TOGETHER.keys() | ELSEWHERE.keys() == {item.name for item in fields(Limits)}
    for path, name in ELSEWHERE.values():
        tree = ast.parse((TESTS / path).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_a_server_with_the_largest_valid_limits_works(serve: Any, make_batch: Any) -> None:
    """What `--check` lets through must not end in an overflow somewhere else."""
    values = {item.name: 2**53 - 1 for item in fields(Limits)}
    values |= dict.fromkeys(("connections", "streams", "watchers", "calls", "health_calls"), 2**28)
    limits = Limits(**values | {"message_bytes": 2**30 - 1})
    assert limit_problems(limits) == []
    service = serve(limits)
    service.create()
    works(service, make_batch, "run")
    answer = service.signals.GetMetrics(signal_pb2.GetMetricsRequest(run="run"), timeout=30)
    assert not answer.windows


@pytest.mark.slow
def test_limit_connections(serve: Any) -> None:
    service = serve(Limits(connections=2))
    service.create()
    apart = (("grpc.use_local_subchannel_pool", 1),)
    with (
        grpc.insecure_channel(service.grpc_address, options=apart) as second,
        grpc.insecure_channel(service.grpc_address, options=apart) as third,
    ):
        grpc.channel_ready_future(second).result(timeout=30)
        with pytest.raises(grpc.FutureTimeoutError):
            grpc.channel_ready_future(third).result(timeout=1)
        second.close()
        grpc.channel_ready_future(third).result(timeout=60)
    assert service.get().name == "run"


@pytest.mark.slow
def test_limit_calls(serve: Any, eventually: Any, make_batch: Any) -> None:
    service = serve(Limits(calls=1))
    service.create()
    with held_commits() as release:
        waiting = service.runs.CreateRun.future(
            run_pb2.CreateRunRequest(name="other", config=run_pb2.RunConfig(**shaped())), timeout=60
        )
        eventually(lambda: release.entered)
        error = refused(service.get)
        assert "1 calls are open" in error.details()
        refused(service.get)
    assert waiting.result(60).created
    assert service.get().name == "run"
    assert metric(service, "calls") == 2
    works(service, make_batch, "run")


def test_limit_health_calls(serve: Any, eventually: Any, make_batch: Any) -> None:
    """Health is open to everyone: whoever fills its room takes nothing from those who have work to do."""
    service = serve(Limits(calls=1, health_calls=2))
    service.create()
    health = health_pb2_grpc.HealthStub(service.channel)
    watches = [health.Watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(2)]
    for watch in watches:
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    error = refused(lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=30))
    assert "2 calls of health are open" in error.details()
    assert metric(service, "health_calls") == 1
    assert service.get().name == "run"
    works(service, make_batch, "run")
    watches[0].cancel()

    def answers() -> bool:
        try:
            health.Check(health_pb2.HealthCheckRequest(), timeout=30)
        except grpc.RpcError:
            return False
        return True

    eventually(answers)


def test_limit_watchers(serve: Any, eventually: Any) -> None:
    service = serve(Limits(watchers=1))
    service.create()
    request = signal_pb2.WatchSignalsRequest(run="run")
    first = service.signals.WatchSignals(request, timeout=60)
    assert next(first).signal.run == "run"
    refused(lambda: next(service.signals.WatchSignals(request, timeout=60)))
    assert service.get().name == "run"
    first.cancel()

    def taken() -> bool:
        try:
            return next(service.signals.WatchSignals(request, timeout=60)).signal.run == "run"
        except grpc.RpcError:
            return False

    eventually(taken)


def test_limit_streams(serve: Any, eventually: Any, make_batch: Any) -> None:
    """Streams count from before their hello."""
    service = serve(Limits(streams=1, hello_seconds=60))
    service.create()
    silent = service.stream()
    # Else the next may come first, and have the room.
    of = 'grpc_method="StreamRouting",grpc_service="pathwatch.v1.RoutingService",grpc_type="bidi_stream"'
    eventually(lambda: series(service, f"grpc_server_in_flight{{{of}}}") == 1)

    def full() -> bool:
        stream = service.stream()
        stream.hello()
        try:
            stream.finish()
        except grpc.RpcError:
            return True
        return False

    assert full()
    second = service.stream()
    second.hello()
    assert "1 streams are open" in ends(second).details()
    assert service.get().name == "run"
    silent.call.cancel()
    eventually(lambda: not full())
    works(service, make_batch, "run")


def test_limit_streams_per_run(serve: Any, make_batch: Any) -> None:
    service = serve(Limits(streams_per_run=1))
    service.create()
    service.create("other")
    first = service.stream()
    first.hello()
    first.await_ack(first.send(make_batch(1)))
    second = service.stream()
    second.hello(session="second")
    assert "1 streams of run 'run' are open" in ends(second).details()
    works(service, make_batch, "other")
    assert first.await_ack(first.send(make_batch(1, first_id=50))) == []


@pytest.mark.slow
def test_limit_hello_seconds(serve: Any, make_batch: Any, eventually: Any) -> None:
    service = serve(Limits(hello_seconds=1, streams=1))
    service.create()
    error = service.stream().error()
    assert error.code() is Code.DEADLINE_EXCEEDED
    assert "within 1 s" in error.details()

    def gets_in() -> bool:
        """The room is free a moment after the refusal; and on a busy machine a hello may take its second."""
        try:
            works(service, make_batch, "run")
        except grpc.RpcError:
            return False
        return True

    eventually(gets_in)


def test_limit_runs(serve: Any, make_batch: Any) -> None:
    service = serve(Limits(runs=1))
    service.create()
    assert "delete some" in refused(lambda: service.create("other")).details()
    works(service, make_batch, "run")


@pytest.mark.parametrize(
    "config",
    [
        shaped(layers=3, capacity=2),
        shaped(experts=5, capacity=2),
        shaped(capacity=9),
        shaped(capacity=2, groups=[run_pb2.GroupSettings(group=name) for name in "abc"]),
        shaped(capacity=8),
    ],
    ids=["layers", "experts", "capacity", "groups_per_run", "window_bytes_per_run"],
)
def test_what_a_run_may_ask_for(serve: Any, config: dict[str, Any], request: Any, make_batch: Any) -> None:
    limit = request.node.callspec.id
    room = 100 if limit == "window_bytes_per_run" else 1 << 20
    service = serve(Limits(layers=2, experts=4, capacity=8, groups_per_run=2, window_bytes_per_run=room))
    refused(lambda: service.create("large", **config))
    assert metric(service, limit) == 1
    problems = service.runs.ValidateRun(
        run_pb2.ValidateRunRequest(name="large", config=run_pb2.RunConfig(**config)), timeout=30
    ).violations
    assert len(problems) == 1
    service.create(capacity=2)
    if limit != "window_bytes_per_run":
        works(service, make_batch, "run")


def test_limit_ranks_per_run(serve: Any, make_batch: Any) -> None:
    """A world size is believed: whoever is missing from it is waited for."""
    service = serve(Limits(ranks_per_run=4))
    service.create()
    stream = service.stream()
    stream.hello(world_size=2**32 - 1)
    assert "at most 4 ranks" in ends(stream).details()
    works(service, make_batch, "run", world_size=4)


def test_limit_groups_per_run(serve: Any, make_batch: Any) -> None:
    service = serve(Limits(groups_per_run=1))
    service.create()
    stream = service.stream()
    stream.hello()
    stream.send(make_batch(1, "a"))
    stream.send(make_batch(1, "b"))
    (rejection,) = stream.await_ack(stream.send(make_batch(1, "a", first_id=50)))
    assert (rejection.field, rejection.code) == ("batch.group", Code.RESOURCE_EXHAUSTED.value[0])
    assert metric(service, "groups_per_run") == 1


def test_limit_name_length(serve: Any, make_batch: Any) -> None:
    service = serve(Limits(name_length=5))
    service.create()
    for wrong in (
        lambda: service.create("longer"),
        lambda: service.create("fine", **shaped(groups=[run_pb2.GroupSettings(group="longer")])),
    ):
        with pytest.raises(grpc.RpcError, match="1 to 5") as error:
            wrong()
        assert error.value.code() is Code.INVALID_ARGUMENT
    stream = service.stream()
    stream.hello(session="longer")
    assert "hello.session: has 6 characters, at most 5" in stream.error().details()
    stream = service.stream()
    stream.hello(session="short")
    (rejection,) = stream.await_ack(stream.send(make_batch(1, "longer")))
    assert "1 to 5" in rejection.message
    assert stream.await_ack(stream.send(make_batch(1, "short"))) == []


@pytest.mark.parametrize("missing", ["run", "session", "group"])
def test_names_are_not_empty(serve: Any, make_batch: Any, missing: str) -> None:
    service = serve()
    service.create()
    stream = service.stream()
    match missing:
        case "run":
            with pytest.raises(grpc.RpcError, match="must be 1 to 128 characters") as error:
                service.create("")
            assert error.value.code() is Code.INVALID_ARGUMENT
            stream.hello("")
            assert stream.error().code() is Code.NOT_FOUND
        case "session":
            stream.hello(session="")
            assert "hello.session: is empty" in stream.error().details()
        case "group":
            stream.hello()
            (rejection,) = stream.await_ack(stream.send(make_batch(1, "")))
            assert (rejection.field, rejection.code) == ("batch.group", Code.INVALID_ARGUMENT.value[0])
    works(service, make_batch, "run")


def test_limit_checkpoints_per_run(serve: Any) -> None:
    service = serve(Limits(checkpoints_per_run=2))
    service.create()
    checkpoint(service, 1)
    checkpoint(service, 2)
    error = refused(lambda: checkpoint(service, 3))
    assert is_lasting(error)
    checkpoint(service, 2, "again")


def test_a_client_past_its_checkpoints_still_delivers(serve: Any, eventually: Any, make_batch: Any) -> None:
    from pathwatch.client import RoutingStream

    service = serve(Limits(checkpoints_per_run=1))
    service.create()
    stream = RoutingStream(service.grpc_address, run="run", rank=0, world_size=1)
    for step in (1, 2, 3):
        stream.register_checkpoint(step=step, tag="")
        stream.watermark(step)
    eventually(lambda: service.get().step == 3)
    stream.close()


def test_limit_tag_length(serve: Any) -> None:
    service = serve(Limits(tag_length=10))
    service.create()
    checkpoint(service, 1, "x" * 10)
    with pytest.raises(grpc.RpcError, match="at most 10") as error:
        checkpoint(service, 2, "x" * 11)
    assert error.value.code() is Code.INVALID_ARGUMENT


def test_limit_answer_rows(serve: Any, make_batch: Any, eventually: Any) -> None:
    service = serve(Limits(answer_rows=6))
    service.create()
    stream = service.stream()
    stream.hello()
    for step in range(1, 9):
        stream.send(make_batch(step))
        stream.send(routing_pb2.Watermark(step=step))
    eventually(lambda: service.get().closed_step == 8)

    def ask(**what: Any) -> Any:
        return service.signals.GetMetrics(signal_pb2.GetMetricsRequest(run="run", **what), timeout=30)

    assert "more than 6 windows and signals" in refused(ask).details()
    assert [window.step for window in ask(after_step=6).windows] == [7, 8]
    brief = ask(max_points=100)
    assert [window.step for window in brief.windows] == [1, 4, 8], "half of six rows; the rest is for signals"
    assert brief.stride == 3


def test_limit_series_groups(serve: Any, make_batch: Any, eventually: Any) -> None:
    """Nobody hears of it: it is about what /metrics says."""
    service = serve(Limits(series_groups=2))
    service.create()
    stream = service.stream()
    stream.hello()
    for group in ("b", "d", "a", "c"):
        stream.send(make_batch(1, group))
    assert stream.await_ack(stream.send(routing_pb2.Watermark(step=1))) == []
    samples = 'pathwatch_window_samples{{run="run",group="{}"}}'.format
    eventually(lambda: series(service, samples("b")) == series(service, samples("d")) == 8)
    assert series(service, samples("other")) == 16
    assert series(service, samples("a")) == series(service, samples("c")) == 0
    assert series(service, 'pathwatch_other_groups{run="run"}') == 2
    stream.finish()


def test_limit_message_bytes(serve: Any, make_batch: Any) -> None:
    service = serve(Limits(message_bytes=10_000))
    service.create()
    stream = service.stream()
    stream.hello()
    large = stream.send(make_batch(1, n=300))
    (rejection,) = stream.await_ack(stream.send(make_batch(1)))
    assert (rejection.sequence, rejection.code) == (large, Code.RESOURCE_EXHAUSTED.value[0])
    assert metric(service, "message_bytes") == 1


def test_limit_samples_per_message(serve: Any, make_batch: Any) -> None:
    service = serve(Limits(samples_per_message=10))
    service.create()
    stream = service.stream()
    stream.hello()
    stream.send(make_batch(1, n=11))
    (rejection,) = stream.await_ack(stream.send(make_batch(1, n=10)))
    assert (rejection.field, rejection.code) == ("batch.sample_ids", Code.RESOURCE_EXHAUSTED.value[0])


SMALL = Limits(
    message_bytes=40_000,
    unacked_bytes_per_stream=60_000,
    unacked_bytes_per_run=100_000,
    unacked_bytes=200_000,
    waiting_bytes=60_000,
    waiting_seconds=1,
)


@pytest.mark.slow
def test_limit_unacked_bytes_per_run(serve: Any, make_batch: Any, eventually: Any) -> None:
    """While nothing is acknowledged: one run fills its share, and another still gets in."""
    service = serve(SMALL)
    service.create()
    service.create("other")
    batch = make_batch(1, n=500)
    ranks = [service.stream() for _ in range(3)]
    for number, stream in enumerate(ranks):
        stream.hello(rank=number, world_size=3, session=str(number))
    other = service.stream()
    other.hello("other")
    # All of them: a hello is answered by a commit.
    connected = 'pathwatch_connected_ranks{{run="{}"}}'.format
    eventually(lambda: [series(service, connected(run)) for run in ("run", "other")] == [3, 1])
    with held_commits() as release:
        for stream in (ranks[0], ranks[0], ranks[1]):
            stream.send(batch)
        eventually(lambda: release.entered)
        eventually(lambda: series(service, "pathwatch_ingest_bytes_total") > 3 * batch.ByteSize())
        ranks[2].send(batch)
        error = ends(ranks[2])
        assert "no room for 1 s" in error.details()
        other_last = other.send(batch)
    assert other.await_ack(other_last) == []
    for stream in ranks[:2]:
        assert stream.await_ack(1) == []
    works(service, make_batch, "run", rank=2, world_size=3)
    assert metric(service, "waiting_seconds") == 1


@pytest.mark.slow
def test_streams_that_leave_at_once_take_room_until_their_messages_are_gone(
    serve: Any, make_batch: Any, eventually: Any
) -> None:
    service = serve(SMALL)
    service.create()
    batch = make_batch(1, n=500)
    ranks = [service.stream() for _ in range(4)]
    for number, stream in enumerate(ranks):
        stream.hello(rank=number, world_size=4, session=str(number))
    # All of them: a hello is answered by a commit.
    eventually(lambda: series(service, 'pathwatch_connected_ranks{run="run"}') == 4)
    with held_commits():
        for number, stream in enumerate(ranks[:3], start=1):
            stream.send(batch)
            taken = number * batch.ByteSize()
            eventually(lambda taken=taken: series(service, "pathwatch_ingest_bytes_total") >= taken)
            stream.call.cancel()
        ranks[3].send(batch)
        assert "no room for 1 s" in ends(ranks[3]).details()
    works(service, make_batch, "run", rank=3, world_size=4)


def test_limit_waiting_bytes(serve: Any, make_batch: Any, eventually: Any) -> None:
    service = serve(SMALL)
    service.create()
    batch = make_batch(1, n=500)
    ranks = [service.stream() for _ in range(8)]
    for number, stream in enumerate(ranks):
        stream.hello(rank=number, world_size=8, session=str(number))
    # All of them: a hello is answered by a commit.
    eventually(lambda: series(service, 'pathwatch_connected_ranks{run="run"}') == 8)
    with held_commits() as release:
        ranks[0].send(batch)
        eventually(lambda: release.entered)
        for stream in ranks[1:]:
            for _ in range(4):
                stream.send(batch)
        eventually(lambda: metric(service, "waiting_bytes") > 0)
    works(service, make_batch, "run", rank=0, world_size=8)


def test_limit_open_windows_per_run(serve: Any, make_batch: Any) -> None:
    """Watermarks make room; what did not get in is sent again."""
    service = serve(Limits(open_windows_per_run=3))
    service.create()
    stream = service.stream()
    stream.hello()
    for step in (1, 2, 3, 4):
        stream.send(make_batch(step))
    assert "step 4 would open window 4" in ends(stream).details()
    again = service.stream()
    again.hello()
    again.await_ack(again.send(routing_pb2.Watermark(step=3), sequence=4))
    last = again.send(make_batch(4), sequence=5)
    assert again.await_ack(last) == []


def test_limit_window_bytes_per_run(serve: Any, make_batch: Any, eventually: Any) -> None:
    service = serve(Limits(window_bytes_per_run=100_000))
    service.create(capacity=512)
    service.create("other")
    stream = service.stream()
    stream.hello()
    for group in "abcdefgh":
        stream.send(make_batch(1, group, n=512))
    assert "at most 100000 are kept" in ends(stream).details()
    works(service, make_batch, "other")
    # The window that is open can be completed and judged, which makes room.
    again = service.stream()
    again.hello(session="again")
    again.send(routing_pb2.Watermark(step=1))
    eventually(lambda: service.get().closed_step == 1)
    assert again.await_ack(again.send(make_batch(2, n=512))) == []


def test_a_refusal_is_logged_once_and_counted(serve: Any, caplog: Any) -> None:
    service = serve(Limits(runs=1))
    service.create()
    for number in range(20):
        refused(lambda number=number: service.create(f"other-{number}"))
    assert sum("limit runs" in record.getMessage() for record in caplog.records) == 1
    assert metric(service, "runs") == 20


def test_ranks_are_not_told_to_come_back_together(serve: Any) -> None:
    service = serve(Limits(runs=1))
    service.create()
    delays = {retry_delay(refused(lambda: service.create("other"))) for _ in range(8)}
    assert len(delays) > 4
    assert all(60 <= delay <= 90 for delay in delays)


class _Held:
    entered = False


@contextmanager
def held_commits() -> Iterator[_Held]:
    """A disk that takes nothing while this lasts: nothing is acknowledged or answered."""
    commit, state = SqliteStore.commit, _Held()

    def full(self: SqliteStore, writes: Any) -> None:
        state.entered = True
        raise StoreError("cannot write: database or disk is full")

    SqliteStore.commit = full  # type: ignore[method-assign]
    try:
        yield state
    finally:
        SqliteStore.commit = commit  # type: ignore[method-assign]
