"""How a call ends that a server has refused: as that server said."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc

from pathwatch.server.relay.upstream import OWNER


async def abort_as(context: grpc.aio.ServicerContext[Any, Any], error: grpc.aio.AioRpcError) -> NoReturn:
    """End the call with the same code, words and details.

    But for the name of another server: whoever calls a relay may not reach that, and need not.
    """
    said: Any = error.trailing_metadata() or ()
    metadata = tuple((key, value) for key, value in said if key != OWNER)
    await context.abort(error.code(), error.details() or "", metadata)
    raise AssertionError("abort returns to nobody")
