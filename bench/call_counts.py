"""What counting calls and messages costs: `python bench/call_counts.py`.

Both servers answer at once and do nothing else, so that the ratio is an upper bound; rounds alternate. CPU
time of client and server together, of the best round: what other work on the machine adds is left out. The
open server has `Admission` too, which the counting is around in a server of ours.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc

from pathwatch.server.api.admission import Admission
from pathwatch.server.api.call_counts import CallCounts
from pathwatch.server.api.counting import Counting
from pathwatch.server.config import Limits
from pathwatch.server.engine.stats import Stats
from pathwatch.v1 import routing_pb2, routing_pb2_grpc, signal_pb2, signal_pb2_grpc

ROUNDS = 15
MESSAGES = 6000
CALLS = 600


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


async def serve(counting: list[Counting]) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server(interceptors=[*counting, Admission(Limits(), Stats())])
    routing_pb2_grpc.add_RoutingServiceServicer_to_server(Answering(), server)
    signal_pb2_grpc.add_SignalServiceServicer_to_server(Answering(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


def messages() -> Iterator[routing_pb2.StreamRoutingRequest]:
    batch = routing_pb2.ObservationBatch(group="math", sample_ids={"data": bytes(1500)})
    for sequence in range(MESSAGES):
        yield routing_pb2.StreamRoutingRequest(sequence=sequence, batch=batch)


def measure(port: int) -> tuple[float, float]:
    """CPU seconds per message of a stream, its answer included, and per call."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = signal_pb2_grpc.SignalServiceStub(channel)
        request = signal_pb2.GetSignalRequest(run="abc-1")
        stub.GetSignal(request)
        began = time.process_time()
        for _ in range(CALLS):
            stub.GetSignal(request)
        asked = time.process_time()
        for _ in routing_pb2_grpc.RoutingServiceStub(channel).StreamRouting(messages()):
            pass
        return (time.process_time() - asked) / MESSAGES, (asked - began) / CALLS


def main() -> None:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    doors = {
        name: asyncio.run_coroutine_threadsafe(serve(counting), loop).result()
        for name, counting in {"open": [], "counted": [Counting(CallCounts())]}.items()
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in doors}
    for _ in range(ROUNDS):
        for name, (_, port) in doors.items():
            taken[name].append(measure(port))
    for column, what in enumerate(("message of a stream and its answer", "call")):
        plain, counted = (min(row[column] for row in rows) * 1e6 for rows in taken.values())
        print(f"{what}: {plain:.1f} µs open, {counted:.1f} µs counted; ratio {counted / plain:.3f}")


if __name__ == "__main__":
    main()
