"""One rank's stream, with a rank and a server that do as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from relaying import request

from pathwatch.server.api.flow import Flow, InFlight
from pathwatch.server.api.shares import RunShares
from pathwatch.server.config import Limits
from pathwatch.server.engine.decode import Topology
from pathwatch.server.relay.counts import RelayCounts
from pathwatch.server.relay.known import KnownRuns
from pathwatch.server.relay.rank_stream import RankStream
from pathwatch.server.relay.sieve import Sieve
from pathwatch.server.relay.upstream import END
from pathwatch.v1 import routing_pb2, run_pb2

MESSAGES = 500
ROOM = 10
"""Messages that may be read ahead of what the rank is told."""
SIZE = request(MESSAGES, routing_pb2.Watermark(step=MESSAGES)).ByteSize()
LIMITS = Limits(message_bytes=SIZE, unacked_bytes_per_stream=ROOM * SIZE)
CONFIG = run_pb2.RunConfig(
    topology=run_pb2.Topology(layers=2, experts=4),
    mode=run_pb2.OBSERVATION_MODE_STREAM,
    window_steps=10,
    capacity=4,
)


class Prompt:
    """A server that acknowledges every message at once."""

    def __init__(self) -> None:
        self._answers: asyncio.Queue[Any] = asyncio.Queue()

    async def write(self, request: routing_pb2.StreamRoutingRequest) -> None:
        self._answers.put_nowait(routing_pb2.StreamRoutingResponse(acked_sequence=request.sequence))

    async def done_writing(self) -> None:
        self._answers.put_nowait(END)

    async def read(self) -> Any:
        return await self._answers.get()


class Rank:
    """Sends watermarks as fast as they are read."""

    def __init__(self, *, repeats: bool) -> None:
        self.read = 0
        self._repeats = repeats

    async def requests(self) -> AsyncIterator[routing_pb2.StreamRoutingRequest]:
        for sequence in range(1, MESSAGES + 1):
            self.read += 1
            await asyncio.sleep(0)  # the loop goes round, as between messages of the network
            yield request(1 if self._repeats else sequence, routing_pb2.Watermark(step=MESSAGES))


async def converse(rank: Rank) -> tuple[int, int]:
    """Messages that were read before the rank listened, and the last that it was told to be acknowledged."""
    with (
        KnownRuns().enter(run_pb2.Run(name="run", config=CONFIG), 0) as known,
        RunShares(LIMITS).enter("run") as share,
        ThreadPoolExecutor(1) as decoder,
    ):
        sieve = Sieve(known, Topology(layers=2, experts=4, limits=LIMITS), share, decoder, applied=0)
        flow = Flow("run", LIMITS, InFlight(LIMITS))
        first = routing_pb2.StreamRoutingResponse()
        call: Any = Prompt()
        stream = RankStream(rank.requests(), call, first, sieve, flow, RelayCounts())
        answers = stream.serve()
        await anext(answers)
        for _ in range(20 * MESSAGES):  # far more than everything takes
            await asyncio.sleep(0)
        unheard = rank.read
        told = [answer.acked_sequence async for answer in answers]
        stream.close()
        return unheard, told[-1]


def test_a_rank_that_hears_no_answers_is_not_read_on() -> None:
    rank = Rank(repeats=False)
    unheard, told = asyncio.run(asyncio.wait_for(converse(rank), 60))
    assert ROOM <= unheard <= 2 * ROOM
    assert (rank.read, told) == (MESSAGES, MESSAGES)


def test_nor_is_one_that_sends_the_same_again_and_again() -> None:
    rank = Rank(repeats=True)
    unheard, told = asyncio.run(asyncio.wait_for(converse(rank), 60))
    assert ROOM <= unheard <= 2 * ROOM
    assert (rank.read, told) == (MESSAGES, 1)
