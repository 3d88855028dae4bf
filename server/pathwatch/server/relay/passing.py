"""Calls that a relay passes on as they are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from pathwatch.server.api.methods import RULES
from pathwatch.server.api.routing import SHUTTING_DOWN
from pathwatch.server.api.status import abort
from pathwatch.server.engine.refusal import RefusedError
from pathwatch.server.relay.failing import abort_as
from pathwatch.server.relay.upstream import END, Upstream

Context = grpc.aio.ServicerContext[Any, Any]

_RESUMED = frozenset({"/pathwatch.v1.SignalService/WatchSignals"})
"""Made again where the server goes in the midst: an answer says how things stand, not what has changed."""
_PATIENCE_SECONDS = 60.0
"""How long a call may wait for a run to be taken over, where the caller sets it no limit."""


class OpenStreams:
    """Calls that stream answers, to be ended when the relay goes. Used on the event loop."""

    def __init__(self) -> None:
        self.draining = False
        self._calls: set[Any] = set()

    def drain(self) -> None:
        """End them all, and those to come."""
        self.draining = True
        for call in self._calls:
            call.cancel()

    @contextlib.contextmanager
    def enter(self, call: Any) -> Iterator[None]:
        """One while it lasts; it is cancelled afterwards."""
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)
            call.cancel()


def passing_handlers(
    service: ServiceDescriptor, upstream: Upstream, streams: OpenStreams
) -> grpc.GenericRpcHandler[Any, Any]:
    """Handlers of all methods of a service, each of which takes one request: with the caller's token and
    deadline it goes to the server that has the run, whose answers or refusal go back."""
    methods = {method.name: _Passing(method, upstream, streams) for method in service.methods}
    return grpc.method_handlers_generic_handler(
        service.full_name, {name: method.handler for name, method in methods.items()}
    )


class _Passing:
    """One method."""

    def __init__(self, method: MethodDescriptor, upstream: Upstream, streams: OpenStreams) -> None:
        request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        self._path = f"/{method.containing_service.full_name}/{method.name}"
        self._run = RULES[self._path].run or (lambda _: "")
        self._upstream = upstream
        self._streams = streams
        self._encode, self._decode = request.SerializeToString, response.FromString
        codecs = (request.FromString, response.SerializeToString)
        self.handler = (
            grpc.unary_stream_rpc_method_handler(self._stream, *codecs)
            if method.server_streaming
            else grpc.unary_unary_rpc_method_handler(self._answer, *codecs)
        )

    async def _answer(self, request: Any, context: Context) -> Any:
        async def begin(channel: grpc.aio.Channel) -> Any:
            call = channel.unary_unary(self._path, self._encode, self._decode)
            return await call(request, timeout=context.time_remaining(), metadata=metadata)

        try:
            metadata = self._upstream.metadata(context)
            async with self._upstream.reach(self._run(request), begin, _patience(context)) as (response, _):
                return response
        except grpc.aio.AioRpcError as error:
            await abort_as(context, error)
        except RefusedError as refusal:
            await abort(context, refusal)

    async def _stream(self, request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            async with aclosing(self._responses(request, context)) as responses:
                async for response in responses:
                    yield response
            if self._streams.draining:
                await abort(context, SHUTTING_DOWN)
        except asyncio.CancelledError:
            if not self._streams.draining:
                raise
            await abort(context, SHUTTING_DOWN)
        except grpc.aio.AioRpcError as error:
            await abort_as(context, error)
        except RefusedError as refusal:
            await abort(context, refusal)

    async def _responses(self, request: Any, context: Context) -> AsyncGenerator[Any, None]:
        metadata = self._upstream.metadata(context)

        async def begin(channel: grpc.aio.Channel) -> tuple[Any, Any]:
            method = channel.unary_stream(self._path, self._encode, self._decode)
            call = method(request, timeout=context.time_remaining(), metadata=metadata)
            return call, await call.read()

        while not self._streams.draining:
            reaching = self._upstream.reach(self._run(request), begin, _patience(context))
            has_begun = False
            try:
                async with reaching as ((call, response), _):
                    has_begun = True
                    with self._streams.enter(call):
                        while response is not END and not self._streams.draining:
                            yield response
                            response = await call.read()
                return
            except grpc.aio.AioRpcError as error:
                is_away = error.code() is grpc.StatusCode.UNAVAILABLE
                if not (has_begun and is_away and self._path in _RESUMED):
                    raise
            await self._upstream.pause()


def _patience(context: Context) -> float:
    left = context.time_remaining()
    return _PATIENCE_SECONDS if left is None else min(left, _PATIENCE_SECONDS)
