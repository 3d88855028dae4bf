"""A bare grpc.aio server: `python -m bench.latency.bare` prints its address, answers every unary call alike.

What it answers is as large as a signal of eight groups. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc

METHOD = "/bench.Bare/Answer"
_ANSWER = bytes(2048)


class _Answering(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.unary_unary_rpc_method_handler(_answer)


async def _answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    return _ANSWER


async def _serve() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Answering(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(_serve())
