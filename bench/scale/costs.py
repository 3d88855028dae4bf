"""What runs cost a shard and its Redis: memory, and CPU time of observations and of windows."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from redis_process import RedisProcess

from bench.processes import cpu_seconds
from bench.scale.driven_run import DrivenRun
from bench.scale.messages import EncodedRound
from bench.scale.servers import redis_server, shard, used_bytes
from bench.sidecar import Sidecar
from bench.window.windows import GROUPS, SAMPLES, Model
from pathwatch.server.store.redis_log import KEPT_SECONDS

_SETTLED = 1.0
"""Seconds after which all that is done in the background is done."""
_FURTHER = 3
"""Rounds of one run, for what each leaves in Redis."""
_BARE = EncodedRound(Model("bare", 1, 2), groups=1, samples=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCosts:
    """Of a run with rounds of 8 groups of 512 samples."""

    model: str
    layers: int
    experts: int
    runs: int
    """That were measured together."""
    round_bytes: int
    """As sent, float16."""
    bare_bytes: float
    """Of memory, by a shard with next to no runs."""
    idle_bytes: float
    """Of memory, by a run that nothing was sent to."""
    open_bytes: float
    """Of memory, by a run whose round is open, beyond an idle one."""
    judged_bytes: float
    """Of memory, by a run whose first round was judged, beyond an idle one."""
    take_seconds: float
    """Of CPU, to take a round in."""
    close_seconds: float
    """Of CPU, to close and judge it."""
    redis_idle_bytes: float
    redis_open_bytes: float
    """Beyond an idle run."""
    redis_judged_bytes: float
    """What a judged round leaves for good."""
    redis_seconds: float
    """Of CPU, by Redis, for a round from its first message to its verdict."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """Totals at one moment."""

    resident: int
    stored: int
    cpu: float
    redis_cpu: float


def run_costs(folder: Path, model: Model, *, runs: int, idle: int) -> RunCosts:
    """Of a shard with so many runs, after `idle` ones that nothing is sent to."""
    encoded = EncodedRound(model, groups=GROUPS, samples=SAMPLES)
    with redis_server(folder) as redis, shard(folder, "shard", redis) as server, ExitStack() as open_runs:

        def started(name: str, rounds: EncodedRound) -> DrivenRun:
            return open_runs.enter_context(DrivenRun(server.grpc, name, rounds))

        # What is loaded and made once is no run's.
        first, steps = started("first", _BARE), count(1)
        first.observe(0)
        first.complete(0)
        first.await_judged(0)

        def forgotten() -> None:
            """A shard holds what it has written for a while, and lets go of it when it writes the next."""
            time.sleep(KEPT_SECONDS)
            first.complete(next(steps))
            first.await_acks()

        empty = _look(server, redis)
        for number in range(idle):
            with DrivenRun(server.grpc, f"idle{number}", encoded):
                pass
        created = _look(server, redis)
        driven = [started(f"run{number}", encoded) for number in range(runs)]
        before = _look(server, redis)
        for run in driven:
            run.observe(0)
            run.await_acks()
        forgotten()
        observed = _look(server, redis)
        for run in driven:
            run.complete(0)
            run.await_judged(0)
        forgotten()
        judged = _look(server, redis)
        for number in range(1, 1 + _FURTHER):
            driven[0].observe(number)
            driven[0].complete(number)
            driven[0].await_judged(number)
        further = _look(server, redis)
    return RunCosts(
        model=model.name,
        layers=model.layers,
        experts=model.experts,
        runs=runs,
        round_bytes=encoded.nbytes,
        bare_bytes=empty.resident,
        idle_bytes=(created.resident - empty.resident) / idle,
        open_bytes=(observed.resident - before.resident) / runs,
        judged_bytes=(judged.resident - before.resident) / runs,
        take_seconds=(observed.cpu - before.cpu) / runs,
        close_seconds=(judged.cpu - observed.cpu) / runs,
        redis_idle_bytes=(created.stored - empty.stored) / idle,
        redis_open_bytes=(observed.stored - before.stored) / runs,
        redis_judged_bytes=(further.stored - judged.stored) / _FURTHER,
        redis_seconds=(judged.redis_cpu - before.redis_cpu) / runs,
    )


def _look(server: Sidecar, redis: RedisProcess) -> _Seen:
    time.sleep(_SETTLED)
    return _Seen(server.resident_bytes, used_bytes(redis), server.cpu_seconds, cpu_seconds(redis.pid))
