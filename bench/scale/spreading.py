"""The same runs on one shard and on two, one core for each, and what two cores come to without any server."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.processes import cpu_seconds
from bench.scale.computing import GROUPS, SAMPLES, computing_seconds
from bench.scale.driven_run import DrivenRun
from bench.scale.messages import EncodedRound
from bench.scale.servers import redis_server, shard
from bench.window.windows import OLMOE

RUNS = 4
"""Shared out evenly among the shards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One way of serving all runs, once."""

    seconds: float
    """From the first message to the last verdict."""
    shard_cpu: float
    redis_cpu: float
    sender_cpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Turns of each way; those of one number ran one after the other."""

    rounds: int
    """Of all runs, in a turn."""
    round_bytes: int
    one: tuple[Turn, ...]
    """One shard, which may use one core."""
    two: tuple[Turn, ...]
    """Two shards, a core each."""
    one_free: tuple[Turn, ...]
    """One shard, which may use both cores."""
    computing_ratios: tuple[float, ...]
    """How much faster two processes, a core each, close as many rounds as one, without any server."""


def spread(folder: Path, *, turns: int, rounds_per_run: int) -> Spread:
    """Measure so many turns of each way."""
    first, second = sorted(os.sched_getaffinity(0))[:2]
    encoded = EncodedRound(OLMOE, groups=GROUPS, samples=SAMPLES)
    ways: dict[str, Sequence[int | None]] = {"one": [first], "two": [first, second], "one_free": [None]}
    taken: dict[str, list[Turn]] = {name: [] for name in ways}
    ratios = []
    rounds = RUNS * rounds_per_run
    for turn in range(turns):
        for name, cores in ways.items():
            taken[name].append(_turn(folder / f"{name}{turn}", cores, encoded, rounds_per_run))
        alone = computing_seconds([first], rounds // 2)
        ratios.append(alone / computing_seconds([first, second], rounds // 2))
    return Spread(
        rounds=rounds,
        round_bytes=encoded.nbytes,
        **{name: tuple(of) for name, of in taken.items()},
        computing_ratios=tuple(ratios),
    )


def _turn(folder: Path, cores: Sequence[int | None], encoded: EncodedRound, rounds: int) -> Turn:
    with redis_server(folder) as redis, ExitStack() as running:
        servers = [
            running.enter_context(shard(folder, f"shard{number}", redis, core=core))
            for number, core in enumerate(cores)
        ]
        runs = [
            running.enter_context(DrivenRun(servers[number % len(servers)].grpc, f"run{number}", encoded))
            for number in range(RUNS)
        ]
        _play(runs, range(1))  # with imports, and what is made once
        before = (sum(server.cpu_seconds for server in servers), cpu_seconds(redis.pid), time.process_time())
        began = time.monotonic()
        _play(runs, range(1, 1 + rounds))
        seconds = time.monotonic() - began
        after = (sum(server.cpu_seconds for server in servers), cpu_seconds(redis.pid), time.process_time())
        shards, of_redis, sender = (late - early for early, late in zip(before, after, strict=True))
    return Turn(seconds=seconds, shard_cpu=shards, redis_cpu=of_redis, sender_cpu=sender)


def _play(runs: Sequence[DrivenRun], steps: range) -> None:
    """All at once; until all is judged."""
    for step in steps:
        for run in runs:
            run.observe(step)
            run.complete(step)
    for run in runs:
        run.await_acks()
    for run in runs:
        run.await_judged(steps[-1])
