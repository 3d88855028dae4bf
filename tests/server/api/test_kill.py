"""kill -9 anywhere: what was acked is there, and the run ends as if nothing had happened."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis_process import RedisProcess
from server_process import ServerProcess

from pathwatch.client import Client, RoutingStream, reconnect
from pathwatch.v1 import run_pb2, signal_pb2

CONFIG = run_pb2.RunConfig(
    topology=run_pb2.Topology(layers=3, experts=8), grace_seconds=600, keep_observations=True
)
RANKS = 4
STEPS = range(0, 600, 10)
PACE_SECONDS = 0.02
"""Between steps, as training would take: so that a kill finds some sent, some acked, some to come."""

Played = tuple[Any, Any, Any, Any]
"""The run in the end, its history, its last signal, its kept observations."""


@contextmanager
def server(data: Path, *, store: str = "sqlite") -> Iterator[ServerProcess]:
    running = ServerProcess(data, store=store)
    try:
        yield running
    finally:
        running.kill()


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """What an undisturbed server with a data folder says."""
    with server(tmp_path_factory.mktemp("calm")) as calm:
        return play(calm, [])


def observations(step: int, rank: int, group: str) -> dict[str, Any]:
    """Routing that concentrates, loss that falls: phases change on the way."""
    rng = np.random.default_rng([step, rank, len(group)])
    sharpness = 1 + step / 100
    logits_NLK = rng.normal(size=(12, 3, 8)) * sharpness
    weights_NLK = np.exp(logits_NLK) / np.exp(logits_NLK).sum(-1, keepdims=True)
    return {
        "sample_ids": np.arange(12) + 12 * rank,
        "weights": weights_NLK.astype(np.float32),
        "losses": (3 * np.exp(-step / 80) * rng.uniform(0.8, 1.2, 12)).astype(np.float32),
        "targets": rng.integers(0, 3, 12, dtype=np.int32),
        "visits": np.full(12, 1 + step // 10, np.int32),
    }


def play(server: ServerProcess | Disturbed, kill_after: list[int]) -> Played:
    """All ranks send everything; the server is killed each time so many more messages are acked."""
    with Client(server.address) as client:
        client.create_run("run", CONFIG)
    streams = [RoutingStream(server.address, run="run", rank=rank, world_size=RANKS) for rank in range(RANKS)]
    killer = threading.Thread(target=_kill, args=(server, streams, kill_after))
    killer.start()
    for step in STEPS:
        for rank, stream in enumerate(streams):
            for group in ("code", "math"):
                stream.observe(step=step, group=group, **observations(step, rank, group))
            stream.watermark(step)
        time.sleep(PACE_SECONDS)
    killer.join()
    for stream in streams:
        assert stream.flush(120)
        assert stream.stats.dropped_steps == 0
        assert stream.stats.rejected == 0
        stream.close()
    with Client(server.address, timeout=120) as client:
        run = client.finish_run("run")
        kept = list(client.get_observations("run"))
        return run, client.get_metrics("run"), client.get_signal("run"), kept


def _kill(server: ServerProcess | Disturbed, streams: list[RoutingStream], after: list[int]) -> None:
    def acked() -> int:
        return sum(stream.stats.acked for stream in streams)

    deadline = time.monotonic() + 120
    for more in after:
        wanted = acked() + more
        while acked() < wanted and time.monotonic() < deadline:
            time.sleep(0.001)
        server.kill_and_restart()


def what_was_said(signal: signal_pb2.Signal) -> signal_pb2.Signal:
    """A signal without the time it was given."""
    said = signal_pb2.Signal()
    said.CopyFrom(signal)
    said.ClearField("created_at")
    return said


@pytest.mark.slow
def test_killed_and_undisturbed_servers_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: Played
) -> None:
    monkeypatch.setattr(reconnect, "_LONGEST_DELAY", 0.5)  # a job has half a minute for it
    chance = random.Random(7)  # noqa: S311  # when to kill, reproducibly
    with server(tmp_path / "killed") as killed:
        found = play(killed, [chance.randrange(10, 60) for _ in range(5)])
        assert killed.kills == 5
    assert_same(found, wanted)


@pytest.mark.slow
def test_a_server_over_redis_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: Played
) -> None:
    """It is killed, and so is Redis, which also stands still for longer than the server waits for it."""
    monkeypatch.setattr(reconnect, "_LONGEST_DELAY", 0.5)
    chance = random.Random(8)  # noqa: S311
    redis = RedisProcess(tmp_path / "redis")
    try:
        with server(tmp_path / "killed", store=redis.url) as killed:
            disturbed = Disturbed(killed, redis)
            found = play(disturbed, [chance.randrange(10, 60) for _ in range(3)])
            assert (killed.kills, disturbed.done) == (1, 3)
    finally:
        redis.kill()
    assert not list((tmp_path / "killed").glob("*.sqlite3*")), "its state is in Redis"
    assert_same(found, wanted)


class Disturbed:
    """A server over Redis: in turn it is killed, Redis is killed, and Redis stands still."""

    def __init__(self, server: ServerProcess, redis: RedisProcess) -> None:
        self._server, self._redis = server, redis
        self.done = 0

    @property
    def address(self) -> str:
        return self._server.address

    def kill_and_restart(self) -> None:
        match self.done % 3:
            case 0:
                self._server.kill_and_restart()
            case 1:
                self._redis.kill()
                self._redis.start()
            case 2:
                with self._redis.frozen():
                    time.sleep(6)  # longer than RedisOptions.timeout_seconds
        self.done += 1


def assert_same(found: Played, wanted: Played) -> None:
    """But for the times at which something was said."""
    run, history, last_signal, kept = found
    wanted_run, wanted_history, wanted_signal, wanted_kept = wanted
    assert (run.step, run.closed_step, run.state) == (590, 590, run_pb2.RUN_STATE_FINISHED)
    assert list(run.groups) == list(wanted_run.groups)
    assert len(history.windows) == 2 * len(STEPS)
    assert list(history.windows) == list(wanted_history.windows)
    assert [round_.step for round_ in kept] == list(STEPS)
    assert kept == wanted_kept
    assert [what_was_said(s) for s in history.signals] == [what_was_said(s) for s in wanted_history.signals]
    assert what_was_said(last_signal) == what_was_said(wanted_signal)
    assert len({status.phase for s in history.signals for status in s.groups}) > 1
