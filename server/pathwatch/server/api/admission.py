"""How many calls there may be at a time: the first thing that every call meets."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any

import grpc

from pathwatch.server.api.status import abort
from pathwatch.server.config import Limits
from pathwatch.server.engine.refusal import SOON, Code, LimitError, RefusedError
from pathwatch.server.engine.stats import Stats

Context = grpc.aio.ServicerContext[Any, Any]

_LIMIT_OF = {
    "/pathwatch.v1.RoutingService/StreamRouting": "streams",
    "/pathwatch.v1.SignalService/WatchSignals": "watchers",
}
_WHAT = {"streams": "streams", "watchers": "watches", "calls": "calls", "health_calls": "calls of health"}


class Admission(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Counts calls from before anything of them is read until they are over; refuses those beyond a limit."""

    def __init__(self, limits: Limits, stats: Stats) -> None:
        self._stats = stats
        self._seconds = limits.hello_seconds
        self._most: dict[str, int] = {name: getattr(limits, name) for name in _WHAT}
        self._open = dict.fromkeys(_WHAT, 0)

    async def intercept_service(  # type: ignore[override]  # unknown methods have no handler
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler, counted; or one that refuses."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        # Open to everyone, and a watch lasts: it must not take the room of those who have a token.
        limit = "health_calls" if method.startswith("/grpc.health.") else _LIMIT_OF.get(method, "calls")

        async def serve(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            with self._counted(limit) as refusal:
                if refusal:
                    await abort(context, refusal)
                request = requests if handler.request_streaming else await self._only(requests, context)
                if not handler.response_streaming:
                    yield await handler.unary_unary(request, context)
                    return
                call = handler.stream_stream if handler.request_streaming else handler.unary_stream
                answering = call(request, context)
                if inspect.iscoroutine(answering):  # it writes to the context, as grpc_health does
                    await answering
                    return
                async with aclosing(answering) as responses:
                    async for response in responses:
                        yield response

        # A call of one request looks the same on the wire. As one of a stream it comes here before that is
        # read: it is counted, and refused, while its caller has sent nothing, or 64 MB.
        return grpc.stream_stream_rpc_method_handler(
            serve, handler.request_deserializer, handler.response_serializer
        )

    async def _only(self, requests: AsyncIterator[Any], context: Context) -> Any:
        """The request of a call that has one."""
        try:
            async with asyncio.timeout(self._seconds):
                request = await anext(requests, None)
        except TimeoutError:
            late = f"no request came within {self._seconds} s"
            await abort(context, RefusedError(Code.DEADLINE_EXCEEDED, late))
        if request is None:
            await abort(context, RefusedError(Code.INVALID_ARGUMENT, "the call ended without a request"))
        return request

    @contextlib.contextmanager
    def _counted(self, limit: str) -> Iterator[LimitError | None]:
        if self._open[limit] >= self._most[limit]:
            refusal = LimitError(
                limit,
                f"{self._open[limit]} {_WHAT[limit]} are open, as many as this server takes",
                retry_seconds=SOON,
            )
            self._stats.count_limit(refusal)
            yield refusal
            return
        self._open[limit] += 1
        try:
            yield None
        finally:
            self._open[limit] -= 1
