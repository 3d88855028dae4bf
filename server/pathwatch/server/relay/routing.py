"""RoutingService of a relay: ranks' streams, each with one to the server that has the run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing
from typing import Any

import grpc

from pathwatch.server.api.age import ConnectionAge
from pathwatch.server.api.flow import Flow, InFlight
from pathwatch.server.api.hello import read_hello
from pathwatch.server.api.routing import SHUTTING_DOWN
from pathwatch.server.api.shares import RunShares
from pathwatch.server.api.status import abort
from pathwatch.server.config import Limits
from pathwatch.server.engine.decode import Topology
from pathwatch.server.engine.refusal import RefusedError
from pathwatch.server.engine.stats import Stats
from pathwatch.server.relay.counts import RelayCounts
from pathwatch.server.relay.failing import abort_as
from pathwatch.server.relay.known import KnownRuns
from pathwatch.server.relay.rank_stream import RankStream
from pathwatch.server.relay.sieve import Sieve
from pathwatch.server.relay.stream_call import StreamCall, greet
from pathwatch.server.relay.upstream import END, Metadata, Upstream
from pathwatch.v1 import routing_pb2, routing_pb2_grpc, run_pb2

Context = grpc.aio.ServicerContext[Any, Any]

_GET_RUN = "/pathwatch.v1.RunService/GetRun"
_TAKEOVER_SECONDS = 15.0
"""How long a rank waits for its run to be taken over, before it hears that nobody serves it."""


class RelayedRouting(routing_pb2_grpc.RoutingServiceServicer):
    """The servicer; one instance, used on the event loop."""

    def __init__(
        self, upstream: Upstream, limits: Limits, age: ConnectionAge, stats: Stats, counts: RelayCounts
    ) -> None:
        self._upstream = upstream
        self._limits = limits
        self._age = age
        self._stats = stats
        self._counts = counts
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="pathwatch-decode")
        self._in_flight = InFlight(limits)
        self._shares = RunShares(limits)
        self._known = KnownRuns()
        self._open: set[RankStream] = set()
        self._draining = False

    async def StreamRouting(
        self, request_iterator: AsyncIterator[routing_pb2.StreamRoutingRequest], context: Context
    ) -> AsyncIterator[routing_pb2.StreamRoutingResponse]:
        """See routing.proto."""
        if self._draining:
            await abort(context, SHUTTING_DOWN)
        requests = aiter(request_iterator)
        hello = await read_hello(requests, context, self._limits.hello_seconds)
        try:
            metadata = self._upstream.metadata(context)
            async with aclosing(self._serve(hello, requests, metadata)) as responses:
                async for response in responses:
                    yield response
        except grpc.aio.AioRpcError as error:
            await abort_as(context, error)
        except RefusedError as refusal:
            self._stats.count_limit(refusal)
            await abort(context, refusal)

    def drain(self) -> None:
        """Read no more; streams end once what they sent is acknowledged."""
        self._draining = True
        for stream in self._open:
            stream.drain()

    def close(self) -> None:
        """Let go of the decoding thread."""
        self._decoder.shutdown(wait=False, cancel_futures=True)

    async def _serve(
        self,
        hello: routing_pb2.StreamHello,
        requests: AsyncIterator[routing_pb2.StreamRoutingRequest],
        metadata: Metadata,
    ) -> AsyncGenerator[routing_pb2.StreamRoutingResponse, None]:
        async def begin(channel: grpc.aio.Channel) -> tuple[StreamCall, Any]:
            return await greet(channel, hello, metadata)

        reaching = self._upstream.reach(hello.run, begin, _TAKEOVER_SECONDS)
        with self._shares.enter(hello.run) as share, ExitStack() as closing:
            async with reaching as ((call, first), channel):
                closing.callback(call.cancel)
                if first is END:
                    return
                run = await self._run(channel, hello.run, metadata)
                shape = run.config.topology
                with self._known.enter(run, hello.attempt) as known:
                    topology = Topology(layers=shape.layers, experts=shape.experts, limits=self._limits)
                    sieve = Sieve(known, topology, share, self._decoder, applied=first.acked_sequence)
                    flow = Flow(hello.run, self._limits, self._in_flight)
                    stream = RankStream(requests, call, first, sieve, flow, self._counts)
                    self._open.add(stream)
                    if self._draining:  # since the rank came
                        stream.drain()
                    retiring = self._retire_after(stream)
                    try:
                        async with aclosing(stream.serve()) as responses:
                            async for response in responses:
                                yield response
                    finally:
                        if retiring is not None:
                            retiring.cancel()
                        self._open.discard(stream)
                        stream.close()

    def _retire_after(self, stream: RankStream) -> asyncio.TimerHandle | None:
        seconds = self._age.draw()
        return None if seconds is None else asyncio.get_running_loop().call_later(seconds, stream.retire)

    async def _run(self, channel: grpc.aio.Channel, name: str, metadata: Metadata) -> run_pb2.Run:
        """The run, as the server that has it knows it: what is to be known of its windows."""
        call = channel.unary_unary(
            _GET_RUN, run_pb2.GetRunRequest.SerializeToString, run_pb2.GetRunResponse.FromString
        )
        response: run_pb2.GetRunResponse = await call(run_pb2.GetRunRequest(name=name), metadata=metadata)
        return response.run
