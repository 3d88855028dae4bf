"""Very many ranks in one process, each a stream of its own made by hand, over few connections.

    python logical_ranks_main.py COUNTERS

A line of stdin says what to play, `{"addresses", "runs", "ranks": [first, end], "world_size", "connections",
"pace"}`: these ranks of each run send STEPS steps of one sample each, follow whom the servers name as owner,
and come again until all is acknowledged. A line on stdout says what it took. COUNTERS is a file of int64
[runs]: messages acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from pathwatch.client.tensors import to_tensor
from pathwatch.v1 import routing_pb2, routing_pb2_grpc

STEPS = 4
LAYERS, EXPERTS = 2, 4
GROUPS = ("code", "math")
MESSAGES = 2 * STEPS
"""Of one rank: a sample and a watermark for each step."""
PATIENCE_SECONDS = 200.0
JOINING = 64
"""Ranks of a process that wait at once to be let in: a server has to read the hello of each in time."""
_PASSING = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    # Of a call that ended while it was written to grpc.aio forgets how.
    grpc.StatusCode.INTERNAL,
)
_ENDED = (asyncio.InvalidStateError, grpc.RpcError)
"""What writing raises to a call that has ended."""


def messages(run: str, rank: int, ranks: int) -> list[routing_pb2.StreamRoutingRequest]:
    """Hello, and everything that a rank sends after it."""
    hello = routing_pb2.StreamHello(run=run, rank=rank, world_size=ranks, session=f"{run}-{rank}")
    made = [routing_pb2.StreamRoutingRequest(hello=hello)]
    for step in range(STEPS):
        rng = np.random.default_rng([step, rank, *run.encode()])
        weights_NLK = rng.dirichlet(np.ones(EXPERTS), (1, LAYERS)).astype(np.float32)
        batch = routing_pb2.StreamRoutingRequest(sequence=len(made))
        batch.batch.step = step
        batch.batch.group = GROUPS[rank % len(GROUPS)]
        batch.batch.sample_ids.CopyFrom(to_tensor(np.array([rank])))
        batch.batch.weights.CopyFrom(to_tensor(weights_NLK))
        batch.batch.losses.CopyFrom(to_tensor(rng.uniform(0.1, 3 / (1 + step), 1).astype(np.float32)))
        mark = routing_pb2.StreamRoutingRequest(sequence=len(made) + 1)
        mark.watermark.step = step
        made += [batch, mark]
    return made


@dataclass
class Connections:
    """So many of them to each server that is asked, made when they are wanted."""

    count: int
    _open: dict[tuple[str, int], grpc.aio.Channel] = field(default_factory=dict)

    def channel(self, address: str, rank: int) -> grpc.aio.Channel:
        place = address, rank % self.count
        if place not in self._open:
            self._open[place] = grpc.aio.insecure_channel(
                address, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
            )
        return self._open[place]

    async def close(self) -> None:
        for channel in self._open.values():
            await channel.close()


class Rank:
    """One rank of a run, until all of it is acknowledged."""

    def __init__(self, run: str, rank: int, ranks: int, counter: NDArray[np.int64]) -> None:
        self._rank = rank
        self._messages = messages(run, rank, ranks)
        self._counter = counter
        self.acked = 0
        self.streams = self.followed = 0

    async def play(
        self, connections: Connections, joining: asyncio.Semaphore, addresses: Sequence[str], pace: float
    ) -> None:
        """The servers in turn, but first the one that another has named."""
        turn, owner = self._rank, ""
        while self.acked < MESSAGES:
            address = owner or addresses[turn % len(addresses)]
            try:
                self.streams += 1
                await self._stream(connections.channel(address, self._rank), joining, pace)
                owner = address
            except grpc.aio.AioRpcError as error:
                told = dict(error.trailing_metadata() or ()).get("pathwatch-owner", "")
                if error.code() not in _PASSING:
                    raise
                self.followed += bool(told)
                turn, owner = turn + 1, told if told != owner else ""
                if not owner:
                    await asyncio.sleep(random.uniform(0.2, 1.0))  # noqa: S311

    async def _stream(self, channel: grpc.aio.Channel, joining: asyncio.Semaphore, pace: float) -> None:
        async with joining:
            call: Any = routing_pb2_grpc.RoutingServiceStub(channel).StreamRouting()
            answered = asyncio.Event()
            hearing = asyncio.ensure_future(self._hear(call, answered))
            with suppress(*_ENDED):
                await call.write(self._messages[0])
                await answered.wait()
        with suppress(*_ENDED):  # how the call ended is heard
            for message in self._messages[1 + self.acked :]:
                if hearing.done():
                    break
                await call.write(message)
                if message.WhichOneof("payload") == "watermark":
                    await asyncio.sleep(pace * random.uniform(0.5, 1.5))  # noqa: S311
        try:
            await hearing
        finally:
            hearing.cancel()
            call.cancel()

    async def _hear(self, call: Any, answered: asyncio.Event) -> None:
        """Until all is acknowledged, or the call ends; `answered` from the first response on, or the end."""
        try:
            async for response in call:
                answered.set()
                assert not response.rejections, response
                if response.acked_sequence > self.acked:
                    self._counter += response.acked_sequence - self.acked
                    self.acked = response.acked_sequence
                if self.acked == MESSAGES:
                    return
        finally:
            answered.set()


async def play(order: Mapping[str, Any], counters_R: NDArray[np.int64]) -> dict[str, int]:
    """All ranks of an order."""
    connections = Connections(order["connections"])
    joining = asyncio.Semaphore(JOINING)
    first, end = order["ranks"]
    ranks = [
        Rank(run, rank, order["world_size"], counters_R[place : place + 1])
        for place, run in enumerate(order["runs"])
        for rank in range(first, end)
    ]
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(
            *(rank.play(connections, joining, order["addresses"], order["pace"]) for rank in ranks)
        )
    await connections.close()
    return {
        "acked": sum(rank.acked for rank in ranks),
        "streams": sum(rank.streams for rank in ranks),
        "followed": sum(rank.followed for rank in ranks),
    }


def main() -> None:
    """Obey stdin until it ends."""
    with asyncio.Runner() as runner:  # one loop: gRPC's poller does not survive the first
        for line in sys.stdin:
            order = json.loads(line)
            counters_R = np.memmap(sys.argv[1], np.int64, "r+", shape=(len(order["runs"]),))
            print(json.dumps(runner.run(play(order, counters_R))), flush=True)


if __name__ == "__main__":
    main()
