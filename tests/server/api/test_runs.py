"""RunService and SignalService as schedulers see them, through the client that they use."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from pathwatch.client import Client, PathwatchError, RoutingStream
from pathwatch.server.engine import engine
from pathwatch.server.engine.clock import Clock
from pathwatch.v1 import run_pb2, signal_pb2

CONFIG = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4))


@pytest.fixture
def client(service: Any) -> Iterator[Client]:
    with Client(service.grpc_address) as client:
        yield client


def feed(service: Any, make_batch: Any, steps: Any, *, run: str = "run", **stream: Any) -> None:
    """Sends observations with the client of training jobs and waits until they are durable."""
    sender = RoutingStream(service.grpc_address, run=run, **stream)
    for step in steps:
        for group in ("code", "math"):
            batch = make_batch(step, group)
            arrays = _arrays(batch)
            sender.observe(step=step, group=group, **arrays)
        sender.watermark(step)
    assert sender.flush(60)
    sender.close()


def _arrays(batch: Any) -> dict[str, Any]:
    import numpy as np

    return {
        "sample_ids": np.frombuffer(batch.sample_ids.data, np.int64),
        "losses": np.frombuffer(batch.losses.data, np.float32),
        "weights": np.frombuffer(batch.weights.data, np.float32).reshape(batch.weights.shape),
        "targets": np.frombuffer(batch.targets.data, np.int32),
        "visits": np.frombuffer(batch.visits.data, np.int32),
    }


def test_runs_are_created_listed_finished_and_deleted(client: Client) -> None:
    assert client.create_run("first", CONFIG).state == run_pb2.RUN_STATE_ACTIVE
    again = client.create_run("first", CONFIG)
    assert (again.name, again.step, again.closed_step) == ("first", -1, -1)
    client.create_run("second", CONFIG)
    assert [run.name for run in client.list_runs()] == ["second", "first"]
    assert client.finish_run("first").state == run_pb2.RUN_STATE_FINISHED
    assert client.get_run("first").state == run_pb2.RUN_STATE_FINISHED
    client.delete_run("first")
    assert [run.name for run in client.list_runs()] == ["second"]


def test_runs_are_listed_by_state(service: Any, client: Client) -> None:
    client.create_run("a", CONFIG)
    client.create_run("b", CONFIG)
    client.finish_run("a")
    finished = service.runs.ListRuns(run_pb2.ListRunsRequest(state=run_pb2.RUN_STATE_FINISHED)).runs
    active = service.runs.ListRuns(run_pb2.ListRunsRequest(state=run_pb2.RUN_STATE_ACTIVE)).runs
    assert ([run.name for run in finished], [run.name for run in active]) == (["a"], ["b"])


def test_validate_lists_all_problems_and_creates_nothing(client: Client) -> None:
    bad = run_pb2.RunConfig(thresholds=[3.0], policy="nonesuch")
    fields = [violation.field for violation in client.validate_run("a b", bad)]
    assert fields == [
        "name",
        "config.topology.layers",
        "config.topology.experts",
        "config.thresholds[0]",
        "config.policy",
    ]
    assert list(client.validate_run("run", CONFIG)) == []
    assert list(client.list_runs()) == []


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get_run("nobody"),
        lambda client: client.finish_run("nobody"),
        lambda client: client.delete_run("nobody"),
        lambda client: client.register_checkpoint("nobody", step=1),
        lambda client: client.rank_checkpoints("nobody"),
        lambda client: client.get_signal("nobody"),
        lambda client: client.get_metrics("nobody"),
        lambda client: list(client.watch_signals("nobody")),
    ],
)
def test_an_unknown_run_is_not_found(client: Client, call: Any) -> None:
    with pytest.raises(PathwatchError, match="no run 'nobody'") as error:
        call(client)
    assert error.value.code is grpc.StatusCode.NOT_FOUND


def test_another_configuration_is_not_the_same_run(client: Client) -> None:
    client.create_run("run", CONFIG)
    other = run_pb2.RunConfig(topology=run_pb2.Topology(layers=3, experts=4))
    with pytest.raises(PathwatchError, match="topology differ") as error:
        client.create_run("run", other)
    assert error.value.code is grpc.StatusCode.ALREADY_EXISTS


def test_checkpoints_are_ranked_overall_and_by_group(
    service: Any, client: Client, make_batch: Any, eventually: Any
) -> None:
    client.create_run("run", CONFIG)
    feed(service, make_batch, range(0, 50, 10))
    for step in (10, 30):
        client.register_checkpoint("run", step=step, tag=f"step-{step}")
        client.register_checkpoint("run", step=step, tag=f"step-{step}")
    eventually(lambda: client.get_run("run").closed_step == 40)
    for group in ("", "math"):
        ranked = client.rank_checkpoints("run", group=group)
        assert sorted(place.checkpoint.tag for place in ranked) == ["step-10", "step-30"]
        assert all(place.reason for place in ranked)
    assert len(client.rank_checkpoints("run", limit=1)) == 1
    with pytest.raises(PathwatchError, match="no group 'art'; its groups: code, math"):
        client.rank_checkpoints("run", group="art")
    with pytest.raises(PathwatchError, match=r"checkpoint.step: is -1"):
        client.register_checkpoint("run", step=-1)


def test_history_by_step_and_group(service: Any, client: Client, make_batch: Any, eventually: Any) -> None:
    client.create_run("run", CONFIG)
    feed(service, make_batch, range(0, 50, 10))
    eventually(lambda: client.get_run("run").closed_step == 40)
    everything = client.get_metrics("run")
    assert [(w.step, w.group) for w in everything.windows] == [
        (step, group) for step in range(0, 50, 10) for group in ("code", "math")
    ]
    assert everything.signals[0].step == -1
    later = client.get_metrics("run", after_step=20, group="math")
    assert [(w.step, w.group) for w in later.windows] == [(30, "math"), (40, "math")]
    assert all(signal.step > 20 for signal in later.signals)
    assert len(client.get_metrics("run", limit=3).windows) == 3
    assert "memorized_ratio" in everything.windows[-1].metrics
    brief = client.get_metrics("run", max_points=2)
    assert [(w.step, w.group) for w in brief.windows if w.group == "math"] == [(0, "math"), (40, "math")]
    assert brief.windows[-1] == everything.windows[-1]
    assert brief.signals[-1] == everything.signals[-1]
    assert (brief.stride, everything.stride) == (3, 0)
    with pytest.raises(PathwatchError, match=r"limit: cannot be given together with max_points"):
        client.get_metrics("run", limit=1, max_points=2)


def test_watchers_hear_every_change_until_the_run_is_finished(
    service: Any, client: Client, make_batch: Any
) -> None:
    client.create_run("run", CONFIG)
    heard: list[signal_pb2.Signal] = []
    first = threading.Event()

    def watch() -> None:
        for signal in client.watch_signals("run", timeout=60):
            heard.append(signal)
            first.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert first.wait(30)
    feed(service, make_batch, range(0, 100, 10))
    client.finish_run("run")
    watcher.join(30)
    assert not watcher.is_alive()
    revisions = [signal.revision for signal in heard]
    assert revisions[0] == 1
    assert revisions == sorted(revisions)
    assert len(set(revisions[:-1])) == len(revisions[:-1])
    assert heard[-1] == client.get_signal("run")
    assert heard[-1].step == 90


def test_watchers_hear_that_data_stopped(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_700_000_000.0]  # stands still until the watcher has heard that all is well
    monkeypatch.setattr(engine, "Clock", lambda: Clock(wall=lambda: now[0]))
    with Client(serve().grpc_address) as client:
        client.create_run("run", run_pb2.RunConfig(topology=CONFIG.topology, grace_seconds=0.5))
        watching = client.watch_signals("run", timeout=60)
        assert not next(watching).stale
        now[0] += 0.6
        assert next(watching).stale


def test_watchers_hear_that_a_run_was_deleted(client: Client) -> None:
    client.create_run("run", CONFIG)
    watching = client.watch_signals("run", timeout=60)
    next(watching)
    client.delete_run("run")
    with pytest.raises(PathwatchError, match="deleted") as error:
        next(watching)
    assert error.value.code is grpc.StatusCode.NOT_FOUND


def test_two_ranks_and_a_later_attempt_through_the_client(
    service: Any, client: Client, make_batch: Any, eventually: Any
) -> None:
    client.create_run("run", CONFIG)
    feed(service, make_batch, range(0, 30, 10), rank=0, world_size=2)
    assert client.get_run("run").closed_step == -1
    feed(service, make_batch, range(0, 30, 10), rank=1, world_size=2)
    eventually(lambda: client.get_run("run").closed_step == 20)
    feed(service, make_batch, (20, 30), attempt=1)
    eventually(lambda: client.get_run("run").closed_step == 30)
    windows = client.get_metrics("run", group="math").windows
    assert [(w.step, w.attempt) for w in windows] == [(0, 0), (10, 0), (20, 1), (30, 1)]
