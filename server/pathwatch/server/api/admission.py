"""How many calls there may be at a time: the first thing that every call meets."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any

import grpc

from pathwatch.server.api.status import abort
from pathwatch.server.config import Limits
from pathwatch.server.engine.refusal import SOON, LimitError
from pathwatch.server.engine.stats import Stats

Context = grpc.aio.ServicerContext[Any, Any]

_LIMIT_OF = {
    "/pathwatch.v1.RoutingService/StreamRouting": "streams",
    "/pathwatch.v1.SignalService/WatchSignals": "watchers",
}
_WHAT = {"streams": "streams", "watchers": "watches", "calls": "calls"}


class Admission(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Counts calls from before anything of them is read until they are over; refuses those beyond a limit."""

    def __init__(self, limits: Limits, stats: Stats) -> None:
        self._stats = stats
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
        limit = _LIMIT_OF.get(handler_call_details.method, "calls")

        async def one(request: Any, context: Context) -> Any:
            with self._counted(limit) as refusal:
                if refusal:
                    await abort(context, refusal)
                return await handler.unary_unary(request, context)

        async def many(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._counted(limit) as refusal:
                if refusal:
                    await abort(context, refusal)
                call = handler.stream_stream if handler.request_streaming else handler.unary_stream
                answering = call(request, context)
                if inspect.iscoroutine(answering):  # it writes to the context, as grpc_health does
                    await answering
                    return
                async with aclosing(answering) as responses:
                    async for response in responses:
                        yield response

        codecs = (handler.request_deserializer, handler.response_serializer)
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(many, *codecs)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(many, *codecs)
        return grpc.unary_unary_rpc_method_handler(one, *codecs)

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
