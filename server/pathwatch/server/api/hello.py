"""The first message of a rank's stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from pathwatch.server.api.status import abort
from pathwatch.server.engine.refusal import Code, RefusedError
from pathwatch.server.engine.tensors import invalid
from pathwatch.v1 import routing_pb2


async def read_hello(
    requests: AsyncIterator[routing_pb2.StreamRoutingRequest],
    context: grpc.aio.ServicerContext[Any, Any],
    seconds: float,
) -> routing_pb2.StreamHello:
    """Who the rank is; the call ends where that is not said within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            first = await anext(requests, None)
    except TimeoutError:
        late = f"did not come within {seconds} s; the first message introduces the rank"
        await abort(context, RefusedError(Code.DEADLINE_EXCEEDED, late, "hello"))
    if first is None or first.WhichOneof("payload") != "hello":
        await abort(context, invalid("hello", "is missing; the first message introduces the rank"))
    return first.hello
