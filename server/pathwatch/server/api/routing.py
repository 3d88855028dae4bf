"""RoutingService: streams of observations in, acknowledgements out."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from pathwatch.server.api.age import ConnectionAge
from pathwatch.server.api.flow import Flow, InFlight
from pathwatch.server.api.hello import read_hello
from pathwatch.server.api.responses import response_of
from pathwatch.server.api.shares import RunShare, RunShares
from pathwatch.server.api.status import abort, answer
from pathwatch.server.config import Limits
from pathwatch.server.engine.checks import check_step
from pathwatch.server.engine.decode import Topology, decode_batch, decode_geometry
from pathwatch.server.engine.engine import Engine
from pathwatch.server.engine.refusal import Code, LimitError, RefusedError
from pathwatch.server.engine.stored_batch import stored_batch
from pathwatch.server.engine.streams import (
    Ack,
    Batch,
    End,
    Message,
    RankStream,
    RouterGeometry,
    Watermark,
    Withheld,
)
from pathwatch.server.engine.tensors import invalid
from pathwatch.server.engine.withheld import decode_withheld
from pathwatch.server.failpoints import reach
from pathwatch.v1 import routing_pb2, routing_pb2_grpc

LARGE_BYTES = 128 << 10
"""Messages from this size on are decoded off the event loop."""
_FOR_EVER = 1e9
"""Seconds."""

SHUTTING_DOWN = RefusedError(Code.UNAVAILABLE, "the server is shutting down; connect again later")


class RoutingService(routing_pb2_grpc.RoutingServiceServicer):
    """The servicer; one instance, used on the event loop."""

    def __init__(self, engine: Engine, limits: Limits, age: ConnectionAge) -> None:
        self._engine = engine
        self._limits = limits
        self._age = age
        # One: two of them, the writer and the loop wrangle for the interpreter more than they get done. None,
        # and what the loop has to answer waits while each array operation gets the interpreter back.
        self._decoders = ThreadPoolExecutor(1, thread_name_prefix="pathwatch-decode")
        self._in_flight = InFlight(limits)
        self._shares = RunShares(limits)
        self._open: set[_StreamCall] = set()
        self._draining = False

    async def StreamRouting(
        self,
        request_iterator: AsyncIterator[routing_pb2.StreamRoutingRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[routing_pb2.StreamRoutingResponse]:
        """See routing.proto."""
        if self._draining:
            await abort(context, SHUTTING_DOWN)
        requests = aiter(request_iterator)
        hello = await read_hello(requests, context, self._limits.hello_seconds)
        try:
            with self._shares.enter(hello.run) as share:
                flow = Flow(hello.run, self._limits, self._in_flight)
                call = _StreamCall(self._engine, self._limits, self._decoders, requests, share, flow)
                self._open.add(call)
                retiring = call.retire_after(self._age.draw())
                try:
                    async for response in call.serve(hello, context):
                        yield response
                finally:
                    retiring.cancel()
                    self._open.discard(call)
                    call.close()
        except LimitError as refusal:
            self._engine.stats.count_limit(refusal)
            await abort(context, refusal)

    def drain(self) -> None:
        """Read no more; streams end once what they sent is acknowledged."""
        self._draining = True
        for call in self._open:
            call.drain()

    def close(self) -> None:
        """Let go of the decoding threads."""
        self._decoders.shutdown(wait=False, cancel_futures=True)


class _StreamCall:
    """One call of StreamRouting."""

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        decoders: ThreadPoolExecutor,
        requests: AsyncIterator[routing_pb2.StreamRoutingRequest],
        share: RunShare,
        flow: Flow,
    ) -> None:
        self._engine = engine
        self._limits = limits
        self._decoders = decoders
        self._requests = requests
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Ack | End | None] = asyncio.Queue()
        self._share = share
        self._flow = flow
        self._stream: RankStream | None = None
        self._reader: asyncio.Task[None] | None = None
        self._retired = False
        self._draining = False

    async def serve(
        self, hello: routing_pb2.StreamHello, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[routing_pb2.StreamRoutingResponse]:
        """Responses of the call, until the sender is done and has all its acks. Raises LimitError."""
        stream, topology = await self._introduce(hello, context)
        self._reader = asyncio.create_task(self._read(stream, topology))
        # None wakes the loop below when reading ends, whatever ended it.
        self._reader.add_done_callback(lambda _: self._events.put_nowait(None))
        if self._retired:  # before the hello was answered
            self._reader.cancel()
        while True:
            match await self._events.get():
                case End(refusal=refusal):
                    await abort(context, refusal)
                case Ack() as ack:
                    self._flow.release(ack.size)
                    yield response_of(ack)
                    reach("ack.sent")
            if self._reader.done() and not self._reader.cancelled() and (error := self._reader.exception()):
                raise error  # an acknowledgement may have come between this and its None
            if self._reader.done() and self._flow.unacked == 0:
                if self._draining:
                    await abort(context, SHUTTING_DOWN)
                return

    def drain(self) -> None:
        """Read no more; end, for want of a server, when everything read is acknowledged."""
        self._draining = True
        self.retire()

    def retire_after(self, seconds: float | None) -> asyncio.TimerHandle:
        """`retire` by and by; None = never."""
        return self._loop.call_later(_FOR_EVER if seconds is None else seconds, self.retire)

    def retire(self) -> None:
        """Read no more; end well when everything read is acknowledged. The sender connects anew."""
        self._retired = True
        if self._reader is not None:
            self._reader.cancel()

    def close(self) -> None:
        """The call is over."""
        if self._reader is not None:
            self._reader.cancel()
        if self._stream is not None:
            # Until the writer has come by, what it was given still takes room.
            left = self._engine.leave(self._stream)
            left.add_done_callback(lambda _: self._call_soon(self._flow.close))

    async def _introduce(
        self, hello: routing_pb2.StreamHello, context: grpc.aio.ServicerContext[Any, Any]
    ) -> tuple[RankStream, Topology]:
        self._stream = RankStream(
            run=hello.run,
            attempt=hello.attempt,
            rank=hello.rank,
            world_size=hello.world_size,
            session=hello.session,
            deliver=self._deliver,
            told_dropped=hello.told_dropped_observations,
        )
        view = await answer(context, self._engine.hello(self._stream))
        shape = view.run.config.topology
        return self._stream, Topology(layers=shape.layers, experts=shape.experts, limits=self._limits)

    def _deliver(self, event: Ack | End) -> None:
        """Called in the writer thread."""
        self._call_soon(functools.partial(self._events.put_nowait, event))

    def _call_soon(self, action: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: the server is gone
            self._loop.call_soon_threadsafe(action)

    async def _read(self, stream: RankStream, topology: Topology) -> None:
        async for request in self._requests:
            size = request.ByteSize()
            await self._flow.acquire(size)
            try:
                async with self._share.decoding:
                    if size >= LARGE_BYTES:
                        message = await self._loop.run_in_executor(
                            self._decoders, _decode, request, size, stream, topology
                        )
                    else:
                        message = _decode(request, size, stream, topology)
            except asyncio.CancelledError:
                self._flow.release(size)  # it is as if it had not been read: nothing will acknowledge it
                raise
            self._engine.ingest(message)


def _decode(
    request: routing_pb2.StreamRoutingRequest, size: int, stream: RankStream, topology: Topology
) -> Message:
    try:
        payload: Batch | RouterGeometry | Watermark | Withheld | RefusedError = _payload(
            request, size, stream, topology
        )
    except RefusedError as refusal:
        payload = refusal
    shape = request.batch.sample_ids.shape
    return Message(
        stream=stream,
        sequence=request.sequence,
        payload=payload,
        size=size,
        observations=payload.block.observations
        if isinstance(payload, Batch)
        else _plausible(shape[0] if shape else 0, request),
    )


def _plausible(declared: int, request: routing_pb2.StreamRoutingRequest) -> int:
    """Observations of a refused batch: no more than its sample ids have room for."""
    return max(0, min(declared, len(request.batch.sample_ids.data) // 8))


def _payload(
    request: routing_pb2.StreamRoutingRequest, size: int, stream: RankStream, topology: Topology
) -> Batch | RouterGeometry | Watermark | Withheld:
    most = topology.limits.message_bytes
    if size > most:
        raise LimitError("message_bytes", f"the message has {size} bytes; at most {most} are taken: split it")
    match request.WhichOneof("payload"):
        case "batch":
            block = decode_batch(request.batch, stream.attempt, topology, stream.admit)
            return Batch(block=block, serialized=stored_batch(request.batch, block))
        case "geometry":
            geometry = decode_geometry(request.geometry, topology)
            return RouterGeometry(geometry=geometry, serialized=request.geometry.SerializeToString())
        case "watermark":
            check_step("watermark.step", request.watermark.step)
            return Watermark(step=request.watermark.step, dropped=request.watermark.dropped_observations)
        case "withheld":
            return decode_withheld(request.withheld, topology.limits)
        case "hello":
            raise invalid("hello", "was sent already; it is the first message of a stream only")
    raise invalid("payload", "is missing or of a newer protocol; send a batch, watermark or geometry")
