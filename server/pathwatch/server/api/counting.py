"""Counts calls and messages: the outermost of the interceptors, so that what others refuse counts too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc

from pathwatch.server.api.call_counts import CallCounts, MethodCounts

Context = grpc.aio.ServicerContext[Any, Any]

_CLOCK_SECONDS = 0.1
"""A caller whose deadline has passed hangs up, and is heard a little before the deadline passes here."""


class Counting(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Around `Admission`, whose handlers all are of the kind that streams both ways."""

    def __init__(self, counts: CallCounts) -> None:
        self._counts = counts

    async def intercept_service(  # type: ignore[override]  # unknown methods have no handler
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler, counted."""
        began = time.perf_counter()
        counts = self._counts.of(handler_call_details.method)
        try:
            handler = await continuation(handler_call_details)
        except Exception:
            counts.start()
            counts.end(grpc.StatusCode.UNKNOWN, time.perf_counter() - began)
            raise
        if handler is None:
            counts.start()
            counts.end(grpc.StatusCode.UNIMPLEMENTED, time.perf_counter() - began)
            return None
        return _counted(handler, counts, began)


def _counted(handler: Any, counts: MethodCounts, began: float) -> grpc.RpcMethodHandler[Any, Any]:
    parse, serialize = handler.request_deserializer, handler.response_serializer

    def received(data: bytes) -> Any:
        counts.received += 1
        counts.received_bytes += len(data)
        return data if parse is None else parse(data)

    def sent(response: Any) -> bytes:
        data: bytes = serialize(response)
        counts.sent += 1
        counts.sent_bytes += len(data)
        return data

    async def serve(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        counts.start()
        code = grpc.StatusCode.UNKNOWN
        try:
            async with aclosing(handler.stream_stream(requests, context)) as responses:
                async for response in responses:
                    yield response
            code = context.code() or grpc.StatusCode.OK
        except (asyncio.CancelledError, GeneratorExit):
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception:
            # Without a code of its own it is a fault of the service, for which gRPC says UNKNOWN.
            code = context.code() or code
            raise
        finally:
            counts.end(_seen_by_caller(context, code), time.perf_counter() - began)

    return grpc.stream_stream_rpc_method_handler(serve, received, sent)


def _seen_by_caller(context: Context, code: grpc.StatusCode) -> grpc.StatusCode:
    """What the caller knows of a call that we ended with `code`: past its deadline, nothing else."""
    left = context.time_remaining()
    slack = _CLOCK_SECONDS if code is grpc.StatusCode.CANCELLED else 0.0
    return code if left is None or left > slack else grpc.StatusCode.DEADLINE_EXCEEDED
