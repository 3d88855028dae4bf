"""Calls that a relay passes on as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from pathwatch.server.api.methods import RULES
from pathwatch.server.api.status import abort
from pathwatch.server.engine.refusal import RefusedError
from pathwatch.server.relay.failing import abort_as
from pathwatch.server.relay.upstream import END, Upstream

Context = grpc.aio.ServicerContext[Any, Any]


def passing_handlers(service: ServiceDescriptor, upstream: Upstream) -> grpc.GenericRpcHandler[Any, Any]:
    """Handlers of all methods of a service, each of which takes one request: with the caller's token and
    deadline it goes to the server that has the run, whose answers or refusal go back."""
    return grpc.method_handlers_generic_handler(
        service.full_name, {method.name: _Passing(method, upstream).handler for method in service.methods}
    )


class _Passing:
    """One method."""

    def __init__(self, method: MethodDescriptor, upstream: Upstream) -> None:
        request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        self._path = f"/{method.containing_service.full_name}/{method.name}"
        self._run = RULES[self._path].run or (lambda _: "")
        self._upstream = upstream
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
                try:
                    while response is not END:
                        yield response
                        response = await call.read()
                finally:
                    call.cancel()
        except grpc.aio.AioRpcError as error:
            await abort_as(context, error)
        except RefusedError as refusal:
            await abort(context, refusal)
