"""Requests as messages, bounded before they are parsed: no small one becomes a large one in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from pathwatch.server.api.status import abort
from pathwatch.server.api.wire import WireError, check_items
from pathwatch.server.config import Limits
from pathwatch.server.engine.refusal import Code, RefusedError
from pathwatch.v1 import routing_pb2

Context = grpc.aio.ServicerContext[Any, Any]

CALL_BYTES = 1 << 20
"""Largest request of a call that carries no observations."""
SMALL_BYTES = 16 << 10
"""Up to this size the worst of requests becomes less than a megabyte; counting takes as long as parsing."""


class BoundedRequests(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Refuses requests that hold more than any of the protocol, or cannot be parsed; the caller hears why."""

    def __init__(self, limits: Limits) -> None:
        self._batch_bytes = 2 * limits.message_bytes

    async def intercept_service(  # type: ignore[override]  # unknown methods have no handler
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler that is called with messages instead of bytes."""
        handler = await continuation(handler_call_details)
        service, _, method = handler_call_details.method.lstrip("/").rpartition("/")
        # Requests of health and reflection hold a text or two: nothing that could grow.
        if handler is None or handler.request_deserializer is None or not service.startswith("pathwatch."):
            return handler
        kind = descriptor_pool.Default().FindMethodByName(f"{service}.{method}").input_type
        carries_batches = kind is routing_pb2.StreamRoutingRequest.DESCRIPTOR
        most = self._batch_bytes if carries_batches else CALL_BYTES
        return _parsing(handler, handler.request_deserializer, kind, most)


def _parsing(
    handler: Any, parse: Callable[[bytes], Any], kind: Descriptor, most: int
) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler that takes bytes, and gives the other what they parse to."""

    def parsed(data: bytes) -> Any:
        try:
            if len(data) > most:
                raise RefusedError(
                    Code.RESOURCE_EXHAUSTED, f"{kind.name} has {len(data)} bytes; at most {most} are taken"
                )
            if len(data) > SMALL_BYTES:
                check_items(data, kind)
            return parse(data)
        except WireError as error:
            raise RefusedError(Code.INVALID_ARGUMENT, f"{kind.name} {error}") from None
        except DecodeError:
            raise RefusedError(Code.INVALID_ARGUMENT, f"{kind.name} cannot be parsed") from None

    async def all_parsed(stream: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for data in stream:
            yield parsed(data)

    async def unary_unary(data: bytes, context: Context) -> Any:
        try:
            request = parsed(data)
        except RefusedError as refusal:
            await abort(context, refusal)
        return await handler.unary_unary(request, context)

    async def unary_stream(data: bytes, context: Context) -> AsyncIterator[Any]:
        try:
            request = parsed(data)
        except RefusedError as refusal:
            await abort(context, refusal)
        async with aclosing(handler.unary_stream(request, context)) as responses:
            async for response in responses:
                yield response

    async def stream_stream(stream: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        # Whoever reads may be another task than this, which writes: to end the call is for this one alone,
        # or the status may meet a response under way, and the caller never hears of either.
        try:
            async with aclosing(handler.stream_stream(all_parsed(stream), context)) as responses:
                async for response in responses:
                    yield response
        except RefusedError as refusal:
            await abort(context, refusal)

    serialize = handler.response_serializer
    if handler.request_streaming:
        return grpc.stream_stream_rpc_method_handler(stream_stream, None, serialize)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(unary_stream, None, serialize)
    return grpc.unary_unary_rpc_method_handler(unary_unary, None, serialize)
