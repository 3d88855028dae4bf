"""How long nothing is acknowledged when the shard that has a run is killed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from redis_process import RedisProcess

from bench.scale.messages import windows
from bench.scale.servers import redis_server, shard
from bench.sidecar import Sidecar
from bench.window.windows import GROUPS, OLMOE, SAMPLES
from pathwatch.client import RoutingStream
from pathwatch.v1 import run_pb2

_PATIENCE = 120.0
_EVERY = 0.05
"""Seconds between watermarks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeovers:
    """Of one length of leases."""

    lease_seconds: float
    open_bytes: int
    """Of the observations that the new owner reads from Redis: a round is open."""
    seconds: tuple[float, ...]
    """From the kill to the first new acknowledgement, of each time."""


def takeovers(folder: Path, *, lease_seconds: float, times: int) -> Takeovers:
    """Kill the owner of a run so many times; each time there are two shards and nothing else."""
    taken, nbytes = [], 0
    with redis_server(folder) as redis:
        for number in range(times):
            seconds, nbytes = _once(folder / f"{number}", redis, f"run{number}", lease_seconds)
            taken.append(seconds)
    return Takeovers(lease_seconds=lease_seconds, open_bytes=nbytes, seconds=tuple(taken))


def _once(folder: Path, redis: RedisProcess, run: str, lease_seconds: float) -> tuple[float, int]:
    folder.mkdir()
    with ExitStack() as running:
        shards = {
            server.grpc: server
            for server in (
                running.enter_context(shard(folder, name, redis, lease_seconds=lease_seconds))
                for name in ("one", "two")
            )
        }
        config = run_pb2.RunConfig(
            topology=run_pb2.Topology(layers=OLMOE.layers, experts=OLMOE.experts), grace_seconds=3600
        )
        stream = RoutingStream(",".join(shards), run=run, config=config, buffer_bytes=256 << 20)
        running.callback(stream.close)
        nbytes = _open_round(stream)
        _until("the round is acknowledged", lambda: stream.stats.buffered_bytes == 0)
        return _seconds_without(stream, _owner(shards, redis, run)), nbytes


def _open_round(stream: RoutingStream) -> int:
    nbytes = 0
    for window in windows(OLMOE, groups=GROUPS, samples=SAMPLES).values():
        weights_NLK = window.weights_NLK.astype(np.float16)
        nbytes += weights_NLK.nbytes
        stream.observe(
            # Far ahead of the watermarks: it stays open.
            step=1 << 40,
            group=window.group,
            sample_ids=window.sample_ids_N,
            weights=weights_NLK,
            losses=window.losses_N.astype(np.float32),
        )
    return nbytes


def _owner(shards: dict[str, Sidecar], redis: RedisProcess, run: str) -> Sidecar:
    with redis.client() as client:
        owner = client.hget(f"pathwatch:{{{run}}}:lease", "owner")
    if not isinstance(owner, bytes):
        raise RuntimeError(f"nobody holds the lease of {run}")
    return shards[owner.decode()]


def _seconds_without(stream: RoutingStream, owner: Sidecar) -> float:
    """A watermark all the time; from the owner's end to the first acknowledgement after it."""
    step = 0

    def send() -> None:
        nonlocal step
        step += 1
        stream.watermark(step)

    send()
    _until("a watermark is acknowledged", lambda: stream.stats.buffered_bytes == 0)
    killed = time.monotonic()
    owner.kill()
    # What the owner had answered before its end is heard by then: there is nobody to answer more.
    acked = stream.stats.acked
    next_at = killed
    while stream.stats.acked == acked:
        if (now := time.monotonic()) > killed + _PATIENCE:
            raise RuntimeError(f"nothing is acknowledged {_PATIENCE:g} seconds after the owner's end")
        if now >= next_at:
            next_at = now + _EVERY
            send()
        time.sleep(0.005)
    return time.monotonic() - killed


def _until(what: str, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {_PATIENCE:g} seconds: {what}")
        time.sleep(0.005)
