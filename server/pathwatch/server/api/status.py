"""Refusals as gRPC status, with the retry delay where a limit was hit."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import Future
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf import any_pb2, duration_pb2

from pathwatch.server.engine.refusal import LATER, Code, LimitError, MovedError, RefusedError

T = TypeVar("T")

OWNER = "pathwatch-owner"
"""Trailing metadata: HOST:PORT of the server that has the run; empty = not known, but another one has it."""
JITTER = 0.5
"""Delays are lengthened by up to this part, so that the ranks of a job do not come back at once."""

_STATUS = {code.value[0]: code for code in grpc.StatusCode}


async def abort(context: grpc.aio.ServicerContext[Any, Any], refusal: RefusedError) -> NoReturn:
    """End a call with a refusal."""
    metadata: list[tuple[str, str | bytes]] = []
    if refusal.code is Code.RESOURCE_EXHAUSTED:
        metadata.append(("grpc-status-details-bin", _status_details(refusal)))
    if isinstance(refusal, MovedError):
        metadata.append((OWNER, refusal.owner))
    await context.abort(_STATUS[refusal.code], str(refusal), tuple(metadata))
    raise AssertionError("abort returns to nobody")


async def answer(context: grpc.aio.ServicerContext[Any, Any], future: Future[T]) -> T:
    """What the engine answers; a refusal ends the call."""
    try:
        return await asyncio.wrap_future(future)
    except RefusedError as refusal:
        await abort(context, refusal)


def _status_details(refusal: RefusedError) -> bytes:
    """google.rpc.Status with a google.rpc.RetryInfo; four fields, so encoded by hand."""
    seconds = refusal.retry_seconds if isinstance(refusal, LimitError) else LATER
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(round(1000 * seconds * random.uniform(1, 1 + JITTER)))  # noqa: S311
    retry_info = any_pb2.Any(
        type_url="type.googleapis.com/google.rpc.RetryInfo", value=_field(1, delay.SerializeToString())
    )
    code = bytes((1 << 3, refusal.code))
    return code + _field(2, str(refusal).encode()) + _field(3, retry_info.SerializeToString())


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited field in protobuf's wire format."""
    size, length = len(value), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes((number << 3 | 2, *length)) + value
