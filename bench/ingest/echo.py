"""The least that a server can do, in a process of its own: `python -m bench.ingest.echo [validate]`.

Takes each message and answers with a few bytes: as it is, or once it is parsed and validated, none of it
wanted. Prints its address in the form of `pathwatch serve`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from bench.ingest.generator import METHOD
from bench.overload.messages import EXPERTS, LAYERS
from pathwatch.server.config import Limits
from pathwatch.server.engine.decode import Topology, decode_batch
from pathwatch.server.sketch.admission import Admission
from pathwatch.v1 import routing_pb2

_OPTIONS = [("grpc.max_receive_message_length", 64 << 20)]
_ANSWER = b"\x08\x01"
_TOPOLOGY = Topology(layers=LAYERS, experts=EXPERTS, limits=Limits())


async def _answer(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
    async for _request in requests:
        yield _ANSWER


async def _validate(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
    async for data in requests:
        request = routing_pb2.StreamRoutingRequest.FromString(data)
        if request.HasField("batch"):
            decode_batch(request.batch, 0, _TOPOLOGY, _none)
        yield _ANSWER


def _none(group: str, step: int, sample_ids_N: NDArray[np.int64]) -> Admission:
    return Admission(observations=len(sample_ids_N), wanted_N=np.zeros(0, np.intp), hash_limit=0)


async def serve(*, validates: bool) -> None:
    """Serve until the process is ended."""
    server = grpc.aio.server(options=_OPTIONS)
    _, service, method = METHOD.split("/")
    handler = grpc.stream_stream_rpc_method_handler(_validate if validates else _answer)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"grpc=127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(validates=sys.argv[1:] == ["validate"]))
