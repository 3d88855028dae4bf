"""How a call ends that a server has refused: as that server said."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc

from pathwatch.server.api.status import OWNER

_MOVING = "the run is being moved from one server to another; try again"


def owner_of(error: grpc.aio.AioRpcError) -> str | None:
    """HOST:PORT of the server that has the run, where the one that was asked says that it has it no more:
    empty = another one, not known which; None = nothing of that is said."""
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return None
    return next((str(value) for key, value in _metadata(error) if key == OWNER), None)


async def abort_as(context: grpc.aio.ServicerContext[Any, Any], error: grpc.aio.AioRpcError) -> NoReturn:
    """End the call with the same code, words and details.

    But for another server, where one is named: whoever calls a relay may not reach that, and need not.
    """
    metadata = tuple((key, "" if key == OWNER else value) for key, value in _metadata(error))
    said = error.details() or ""
    await context.abort(error.code(), _MOVING if owner_of(error) else said, metadata)
    raise AssertionError("abort returns to nobody")


def _metadata(error: grpc.aio.AioRpcError) -> Any:
    return error.trailing_metadata() or ()
