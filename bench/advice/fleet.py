"""A fleet of simulated ranks, each with a stream of its own to a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc

from bench.advice.rank import SimulatedRank
from bench.advice.workload import WINDOW_STEPS, Workload
from pathwatch.v1 import routing_pb2, routing_pb2_grpc, run_pb2, run_pb2_grpc

RUN = "advice"
_STREAMS_PER_CHANNEL = 64
_PATIENCE = 600.0
"""Seconds until a window that is not acknowledged is an error, on however busy a machine."""


class _Member:
    """One rank, its stream, and what it has sent."""

    def __init__(self, rank: int, workload: Workload, channel: grpc.aio.Channel, *, deaf: bool) -> None:
        self.rank = SimulatedRank(RUN, rank)
        self.group_bytes = 0
        self.watermark_bytes = 0
        self.acked = asyncio.Event()
        self._deaf = deaf
        self._last = 0
        self._awaited = -1
        self._stub: Any = routing_pb2_grpc.RoutingServiceStub(channel)
        self._sending = asyncio.Lock()
        self._hello = routing_pb2.StreamHello(
            run=RUN, rank=rank, world_size=workload.ranks, session=f"life-{rank}"
        )

    async def join(self) -> None:
        """Say hello and hear whether to hold back."""
        self._call = self._stub.StreamRouting()
        await self._call.write(routing_pb2.StreamRoutingRequest(hello=self._hello))
        self._hear(await self._call.read())
        self._listening = asyncio.create_task(self._listen())

    async def train(self, workload: Workload, number: int, window: int) -> None:
        """Observe a window and pass its end."""
        self.acked.clear()
        self._awaited = window * WINDOW_STEPS + WINDOW_STEPS - 1
        for step in workload.steps(window):
            for one in workload.observations(number, step):
                self.rank.observe(one)
            self.rank.watermark(step)
            await self._send()
        self.rank.watermark(self._awaited)
        await self._send()

    async def leave(self) -> None:
        """End the stream."""
        self._listening.cancel()
        self._call.cancel()

    async def _send(self) -> None:
        async with self._sending:
            for request in self.rank.messages():
                if request.HasField("watermark"):
                    self.watermark_bytes += request.ByteSize()
                else:
                    self.group_bytes += request.ByteSize()
                if request.watermark.step == self._awaited:
                    self._last = request.sequence
                await self._call.write(request)

    def _hear(self, response: routing_pb2.StreamRoutingResponse) -> None:
        if self._deaf:
            response.ClearField("plan")
        self.rank.hear(response)
        if self._last and response.acked_sequence >= self._last:
            self._last = 0
            self.acked.set()

    async def _listen(self) -> None:
        while isinstance(response := await self._call.read(), routing_pb2.StreamRoutingResponse):
            self._hear(response)
            await self._send()


async def windows_sent(
    address: str, workload: Workload, windows: int, *, deaf: bool = False
) -> Sequence[float]:
    """Bytes that a fleet sends in each window; `deaf` ranks take no advice and hold nothing back."""
    channels = [
        grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(-(-workload.ranks // _STREAMS_PER_CHANNEL))
    ]
    created = run_pb2.CreateRunRequest(name=RUN, config=workload.config)
    runs: Any = run_pb2_grpc.RunServiceStub(channels[0])
    await runs.CreateRun(created)
    fleet = [
        _Member(rank, workload, channels[rank // _STREAMS_PER_CHANNEL], deaf=deaf)
        for rank in range(workload.ranks)
    ]
    for member in fleet:
        await member.join()
    sent = []
    for window in range(windows):
        before = _bytes(workload, fleet)
        for number, member in enumerate(fleet):
            await member.train(workload, number, window)
        async with asyncio.timeout(_PATIENCE):
            await asyncio.gather(*(member.acked.wait() for member in fleet))
        sent.append(_bytes(workload, fleet) - before)
    for member in fleet:
        await member.leave()
    for channel in channels:
        await channel.close(None)
    return sent


def _bytes(workload: Workload, fleet: Sequence[_Member]) -> float:
    return workload.whole(
        sum(member.group_bytes for member in fleet), sum(member.watermark_bytes for member in fleet)
    )
