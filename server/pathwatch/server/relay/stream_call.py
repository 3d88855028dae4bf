"""A call of StreamRouting to a server, and how that ended it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc

from pathwatch.server.relay.upstream import END, Metadata
from pathwatch.v1 import routing_pb2

T = TypeVar("T")

_STREAM = "/pathwatch.v1.RoutingService/StreamRouting"
_PROVISIONAL = "Internal error from Core"
_PATIENCE_SECONDS = 1.0


class StreamCall:
    """Written to by one task, read by another.

    Where a server ends a call while a message is being written, gRPC puts an end of its own ("Internal error
    from Core") in place of the server's, whichever comes first. So we note that one when it comes.
    """

    def __init__(self, channel: grpc.aio.Channel, metadata: Metadata) -> None:
        method: Any = channel.stream_stream(
            _STREAM,
            routing_pb2.StreamRoutingRequest.SerializeToString,
            routing_pb2.StreamRoutingResponse.FromString,
        )
        self._end: grpc.aio.AioRpcError | None = None
        self._ended = asyncio.Event()
        self._cancelled = False
        self._call = method(metadata=metadata)
        self._call.add_done_callback(self._note_end)
        # Unlike `read` of gRPC's, it gives what came before the call ended.
        self._answers = aiter(self._call)

    async def write(self, request: routing_pb2.StreamRoutingRequest) -> None:
        """Send a message; of a call that is over, nothing: `read` tells how it ended."""
        with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            await self._call.write(request)

    async def done_writing(self) -> None:
        """Nothing more will be sent."""
        with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            await self._call.done_writing()

    async def read(self) -> Any:
        """The next answer, or END. Raises AioRpcError as the server ended the call."""
        try:
            if (answer := await anext(self._answers, END)) is not END:
                return answer
        except grpc.aio.AioRpcError as error:
            if (end := await self._server_end()) is None:
                raise
            if end.code() is not grpc.StatusCode.OK:
                raise end from error
        return END

    def cancel(self) -> None:
        """End it here; also one that is over."""
        self._cancelled = True
        self._call.cancel()

    async def _server_end(self) -> grpc.aio.AioRpcError | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._ended.wait()
        return self._end

    def _note_end(self, call: Any) -> None:
        """Called with each end that gRPC knows of."""
        if self._cancelled or self._ended.is_set() or (details := _at_once(call.details())) == _PROVISIONAL:
            return
        metadata = _at_once(call.trailing_metadata())
        self._end = grpc.aio.AioRpcError(_at_once(call.code()), grpc.aio.Metadata(), metadata, details, None)
        self._ended.set()


async def greet(
    channel: grpc.aio.Channel, hello: routing_pb2.StreamHello, metadata: Metadata
) -> tuple[StreamCall, Any]:
    """A call that has introduced a rank, and the server's first answer. Raises AioRpcError."""
    call = StreamCall(channel, metadata)
    await call.write(routing_pb2.StreamRoutingRequest(hello=hello))
    return call, await call.read()


def _at_once(known: Coroutine[Any, Any, T]) -> T:
    """What a coroutine comes to that has nothing to wait for."""
    try:
        known.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    raise AssertionError("it waits")
