"""What asking every call for a token costs: `python bench/authorization.py`.

Both servers answer at once and do nothing else, so that the ratio is an upper bound; rounds alternate. CPU
time of client and server together, of the best round: what other work on the machine adds is left out.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import yaml

from pathwatch.server.access.audit import AuditLog
from pathwatch.server.access.counts import AccessCounts
from pathwatch.server.access.token_file import open_tokens
from pathwatch.server.access.tokens import hash_of, new_secret
from pathwatch.server.api.authorization import Authorization
from pathwatch.v1 import routing_pb2, routing_pb2_grpc, signal_pb2, signal_pb2_grpc

ROUNDS = 9
MESSAGES = 4000
CALLS = 400
TOKENS = 100


class Answering(routing_pb2_grpc.RoutingServiceServicer, signal_pb2_grpc.SignalServiceServicer):
    """Acknowledges every message, answers every question."""

    async def StreamRouting(
        self, request_iterator: AsyncIterator[routing_pb2.StreamRoutingRequest], context: Any
    ) -> AsyncIterator[routing_pb2.StreamRoutingResponse]:
        async for request in request_iterator:
            yield routing_pb2.StreamRoutingResponse(acked_sequence=request.sequence)

    async def GetSignal(
        self, request: signal_pb2.GetSignalRequest, context: Any
    ) -> signal_pb2.GetSignalResponse:
        return signal_pb2.GetSignalResponse()


async def serve(interceptors: list[Authorization]) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server(interceptors=interceptors)
    routing_pb2_grpc.add_RoutingServiceServicer_to_server(Answering(), server)
    signal_pb2_grpc.add_SignalServiceServicer_to_server(Answering(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


def messages() -> Iterator[routing_pb2.StreamRoutingRequest]:
    yield routing_pb2.StreamRoutingRequest(hello=routing_pb2.StreamHello(run="abc-1"))
    for sequence in range(1, MESSAGES):
        yield routing_pb2.StreamRoutingRequest(
            sequence=sequence, watermark=routing_pb2.Watermark(step=sequence)
        )


def measure(port: int, metadata: tuple[tuple[str, str], ...]) -> tuple[float, float]:
    """CPU seconds per message of a stream and per call."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = signal_pb2_grpc.SignalServiceStub(channel)
        request = signal_pb2.GetSignalRequest(run="abc-1")
        stub.GetSignal(request, metadata=metadata)
        began = time.process_time()
        for _ in range(CALLS):
            stub.GetSignal(request, metadata=metadata)
        asked = time.process_time()
        for _ in routing_pb2_grpc.RoutingServiceStub(channel).StreamRouting(messages(), metadata=metadata):
            pass
        return (time.process_time() - asked) / MESSAGES, (asked - began) / CALLS


def main() -> None:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        secret = new_secret()
        path = Path(folder) / "tokens.yaml"
        entries = [
            {"name": f"t{i}", "sha256": hash_of(new_secret()).hex(), "scopes": ["read"]}
            for i in range(TOKENS)
        ]
        entries.append(
            {"name": "job", "sha256": hash_of(secret).hex(), "scopes": ["ingest"], "runs": ["abc-*"]}
        )
        path.write_text(yaml.safe_dump(entries))
        path.chmod(0o600)
        guard = Authorization(open_tokens(path, "tokens", AccessCounts()), AuditLog(None), AccessCounts())
        header = (("authorization", f"Bearer {secret}"),)
        doors = {
            "open": (asyncio.run_coroutine_threadsafe(serve([]), loop).result(), ()),
            "guarded": (asyncio.run_coroutine_threadsafe(serve([guard]), loop).result(), header),
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in doors}
        for _ in range(ROUNDS):
            for name, ((_, port), metadata) in doors.items():
                taken[name].append(measure(port, metadata))
    for column, what in enumerate(("message of a stream", "call")):
        plain, guarded = (min(row[column] for row in rows) * 1e6 for rows in taken.values())
        print(
            f"{what}: {plain:.0f} µs open, {guarded:.0f} µs with one of {TOKENS + 1} tokens, bound to runs; "
            f"ratio {guarded / plain:.2f}"
        )


if __name__ == "__main__":
    main()
