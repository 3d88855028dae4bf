"""The least that a server can do, in a process of its own: `python -m bench.ingest.echo [parse]`.

Takes each message and answers with a few bytes: as bytes, or as the protobuf message it is. Prints its
address in the form of `pathwatch serve`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc

from bench.ingest.generator import METHOD
from pathwatch.v1 import routing_pb2

_OPTIONS = [("grpc.max_receive_message_length", 64 << 20)]


async def _answer(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
    async for _request in requests:
        yield b"\x08\x01"


async def _acknowledge(
    requests: AsyncIterator[routing_pb2.StreamRoutingRequest], _: Any
) -> AsyncIterator[routing_pb2.StreamRoutingResponse]:
    async for request in requests:
        yield routing_pb2.StreamRoutingResponse(acked_sequence=request.sequence)


async def serve(*, parses: bool) -> None:
    """Serve until the process is ended."""
    server = grpc.aio.server(options=_OPTIONS)
    _, service, method = METHOD.split("/")
    handler = (
        grpc.stream_stream_rpc_method_handler(
            _acknowledge,
            routing_pb2.StreamRoutingRequest.FromString,
            routing_pb2.StreamRoutingResponse.SerializeToString,
        )
        if parses
        else grpc.stream_stream_rpc_method_handler(_answer)
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"grpc=127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(parses=sys.argv[1:] == ["parse"]))
