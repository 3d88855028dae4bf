"""What a relay remembers of windows, and that it stays little."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import pytest

from pathwatch.server.relay import known as known_module
from pathwatch.server.relay.known import KnownRun, KnownRuns, KnownWindow
from pathwatch.v1 import run_pb2

CONFIG = run_pb2.RunConfig(
    topology=run_pb2.Topology(layers=2, experts=4),
    mode=run_pb2.OBSERVATION_MODE_STREAM,
    window_steps=10,
    capacity=3,
)


def run(name: str = "run", seconds: int = 1) -> run_pb2.Run:
    made = run_pb2.Run(name=name, config=CONFIG)
    made.created_at.FromSeconds(seconds)
    return made


def in_time(main: Callable[[], Awaitable[Any]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 60))  # type: ignore[arg-type]


def hold(known: KnownRun, step: int, *hashes: int, group: str = "math") -> None:
    """Samples whose ids are their hashes."""
    known.hold(group, step, np.array(hashes, np.int64), np.array(hashes, np.uint64))


def test_a_full_window_has_a_limit_that_falls() -> None:
    with KnownRuns().enter(run(), 0) as known:
        window = known.window("math", 4)
        hold(known, 3, 50, 10)
        assert window.hash_limit is None
        hold(known, 4, 30, 30, 40)
        assert window.hash_limit == 41
        window.advise(60)
        assert window.hash_limit == 41
        window.advise(20)
        assert window.hash_limit == 20
        assert known.window("math", 10).hash_limit is None
        assert known.window("code", 4).hash_limit is None


def test_streams_of_one_life_of_a_run_share_what_is_known() -> None:
    runs = KnownRuns()
    with runs.enter(run(), 0) as one:
        with (
            runs.enter(run(), 0) as same,
            runs.enter(run(), 1) as next_attempt,
            runs.enter(run("run", 2), 0) as anew,
        ):
            assert one is same
            assert len({id(known) for known in (one, next_attempt, anew)}) == 3
        with runs.enter(run(), 0) as still:
            assert one is still
    with runs.enter(run(), 0) as later:
        assert one is not later


def test_what_a_server_held_is_in_doubt_once_it_has_ended_a_stream() -> None:
    runs = KnownRuns()
    failure = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
    with runs.enter(run(), 0) as before:
        with pytest.raises(grpc.aio.AioRpcError), runs.enter(run(), 0):
            raise failure
        with runs.enter(run(), 0) as after:
            assert after is not before


def test_too_many_windows_are_forgotten_oldest_first() -> None:
    with KnownRuns(most_windows=2).enter(run(), 0) as known:
        for step in (0, 10):
            hold(known, step, 1, 2, 3)
        known.window("math", 0)
        hold(known, 20, 1, 2, 3)
        assert known.window("math", 0).hash_limit == 4
        assert known.window("math", 10).hash_limit is None


def test_too_many_samples_are_forgotten_with_their_windows() -> None:
    with KnownRuns(most_samples=6).enter(run(), 0) as known:
        for step in (0, 10, 20):
            hold(known, step, 1, 2, 3)
        assert [known.window("math", step).hash_limit for step in (20, 10)] == [4, 4]
        assert known.window("math", 0).hash_limit is None


def test_only_steps_outside_of_what_was_seen_are_news() -> None:
    with KnownRuns().enter(run(), 0) as known:
        known.see(8)
        assert known.is_news(4)  # no observation of a step was heard of yet
        hold(known, 3, 1)
        assert [step for step in range(12) if known.is_news(step)] == [0, 1, 2, 9, 10, 11]


def test_as_many_observations_as_a_window_keeps_are_under_way() -> None:
    async def main() -> None:
        window = KnownWindow(4)
        await window.room(100)  # the first always has room
        window.send(3)
        await window.room(1)
        waiting = asyncio.create_task(window.room(2))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        window.answered(3)
        await waiting

    in_time(main)


def test_nobody_waits_long_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        window = KnownWindow(4)
        window.send(4)
        await window.room(1)

    monkeypatch.setattr(known_module, "_PATIENCE_SECONDS", 0.01)
    in_time(main)
