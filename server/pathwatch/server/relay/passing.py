"""Calls that a relay passes on as they are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
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
            async with self._upstream.reach(self._run(request), begin) as (response, _):
                return response
        except grpc.aio.AioRpcError as error:
            await abort_as(context, error)
        except RefusedError as refusal:
            await abort(context, refusal)

    async def _stream(self, request: Any, context: Context) -> AsyncIterator[Any]:
        async def begin(channel: grpc.aio.Channel) -> tuple[Any, Any]:
            method = channel.unary_stream(self._path, self._encode, self._decode)
            call = method(request, timeout=context.time_remaining(), metadata=metadata)
            return call, await call.read()

        try:
            metadata = self._upstream.metadata(context)
            async with self._upstream.reach(self._run(request), begin) as ((call, response), _):
                with self._streams.enter(call):
                    while response is not END and not self._streams.draining:
                        yield response
                        response = await call.read()
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
