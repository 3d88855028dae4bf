"""What ranks cost a shard that only say how far they are: memory of a stream, CPU time of a watermark."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from redis_process import RedisProcess

from bench.ingest.generator import METHOD
from bench.processes import cpu_seconds
from bench.scale.servers import redis_server, shard, used_bytes
from bench.sidecar import Sidecar
from pathwatch.v1 import routing_pb2, run_pb2, run_pb2_grpc

_RUN = "ranks"
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]
_PATIENCE = 300.0
_AT_ONCE = 128
"""Ranks that join together: a server waits seconds for a hello, and one process greets for all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankCosts:
    """Of one rank of many."""

    ranks: int
    connections: int
    stream_bytes: float
    """Of the shard's memory, its share of a connection included."""
    watermark_seconds: float
    """Of CPU, by the shard, for a watermark and its acknowledgement."""
    redis_bytes: float
    redis_watermark_seconds: float
    """Of CPU, by Redis."""
    every_seconds: float
    """From one watermark of a rank to the next."""
    pace: float
    """Share of that pace that was kept; below 1 the watermarks came more slowly."""


class _Rank:
    """One stream."""

    def __init__(self, channel: grpc.aio.Channel, rank: int, ranks: int) -> None:
        self._method: Any = channel.stream_stream(METHOD, None, None)
        self._hello = routing_pb2.StreamHello(run=_RUN, rank=rank, world_size=ranks, session=f"life-{rank}")
        self._call: Any = None
        self._sent = self._acked = 0

    async def join(self) -> None:
        """Be known to the server."""
        self._call = self._method()
        await self._call.write(routing_pb2.StreamRoutingRequest(hello=self._hello).SerializeToString())
        await self.pass_step()
        await self.hear()

    async def pass_step(self) -> None:
        """Say that one more step is complete."""
        self._sent += 1
        watermark = routing_pb2.Watermark(step=self._sent)
        request = routing_pb2.StreamRoutingRequest(sequence=self._sent, watermark=watermark)
        await self._call.write(request.SerializeToString())

    async def hear(self) -> None:
        """Until everything that was sent is acknowledged."""
        while self._acked < self._sent:
            response = routing_pb2.StreamRoutingResponse.FromString(await self._call.read())
            self._acked = max(self._acked, response.acked_sequence)

    def leave(self) -> None:
        """End the stream."""
        self._call.cancel()


def rank_costs(folder: Path, *, ranks: int, connections: int, every_seconds: float, steps: int) -> RankCosts:
    """Of ranks of one run, each of which completes so many steps, one each `every_seconds`."""
    with redis_server(folder) as redis, shard(folder, "shard", redis) as server:
        with grpc.insecure_channel(server.grpc) as channel:
            topology = run_pb2.Topology(layers=16, experts=64)
            request = run_pb2.CreateRunRequest(name=_RUN, config=run_pb2.RunConfig(topology=topology))
            run_pb2_grpc.RunServiceStub(channel).CreateRun(request, timeout=60)
        return asyncio.run(_measure(server, redis, ranks, connections, every_seconds, steps))


async def _measure(
    server: Sidecar, redis: RedisProcess, ranks: int, connections: int, every_seconds: float, steps: int
) -> RankCosts:
    resident, stored = server.resident_bytes, used_bytes(redis)
    channels = [grpc.aio.insecure_channel(server.grpc, options=_OPTIONS) for _ in range(connections)]
    fleet = [_Rank(channels[number % connections], number, ranks) for number in range(ranks)]
    async with asyncio.timeout(_PATIENCE):
        for first in range(0, ranks, _AT_ONCE):
            await asyncio.gather(*(rank.join() for rank in fleet[first : first + _AT_ONCE]))
        await asyncio.sleep(2)
        joined = server.resident_bytes - resident
        cpu, redis_cpu, began = server.cpu_seconds, cpu_seconds(redis.pid), time.monotonic()
        await asyncio.gather(
            *(_train(rank, every_seconds, number / ranks, steps) for number, rank in enumerate(fleet))
        )
        took = time.monotonic() - began
    found = RankCosts(
        ranks=ranks,
        connections=connections,
        stream_bytes=joined / ranks,
        watermark_seconds=(server.cpu_seconds - cpu) / (ranks * steps),
        redis_bytes=(used_bytes(redis) - stored) / ranks,
        redis_watermark_seconds=(cpu_seconds(redis.pid) - redis_cpu) / (ranks * steps),
        every_seconds=every_seconds,
        # The last rank's last step is due just before this.
        pace=min(1.0, every_seconds * steps / took),
    )
    for rank in fleet:
        rank.leave()
    await asyncio.gather(*(channel.close(None) for channel in channels))
    return found


async def _train(rank: _Rank, every_seconds: float, phase: float, steps: int) -> None:
    """Steps at an even pace, the first after `phase` of one, or as fast as they are acknowledged."""
    began = time.monotonic()
    for step in range(steps):
        await asyncio.sleep(max(0.0, began + (phase + step) * every_seconds - time.monotonic()))
        await rank.pass_step()
        await rank.hear()
