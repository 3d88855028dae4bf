"""What an interceptor costs beside a server that answers at once and does nothing else: an upper bound."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import grpc

from pathwatch.v1 import routing_pb2, routing_pb2_grpc, signal_pb2, signal_pb2_grpc

Messages = Callable[[], Iterator[routing_pb2.StreamRoutingRequest]]


class Door(NamedTuple):
    """How a server is entered."""

    interceptors: Sequence[grpc.aio.ServerInterceptor]
    metadata: tuple[tuple[str, str], ...] = ()


class Costs(NamedTuple):
    """CPU time of client and server together, of the best round, in seconds."""

    message: float
    """A message of a stream and its answer."""
    call: float


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


def measure(doors: Mapping[str, Door], messages: Messages, calls: int, rounds: int) -> dict[str, Costs]:
    """Costs by door; rounds alternate, so that what other work on the machine adds is left out."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    servers = {
        name: asyncio.run_coroutine_threadsafe(_serve(door), loop).result() for name, door in doors.items()
    }
    taken: dict[str, list[Costs]] = {name: [] for name in doors}
    for _ in range(rounds):
        for name, (_, port) in servers.items():
            taken[name].append(_measure(port, doors[name].metadata, messages, calls))
    return {name: Costs(*map(min, zip(*costs, strict=True))) for name, costs in taken.items()}


async def _serve(door: Door) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server(interceptors=list(door.interceptors))
    routing_pb2_grpc.add_RoutingServiceServicer_to_server(Answering(), server)
    signal_pb2_grpc.add_SignalServiceServicer_to_server(Answering(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


def _measure(port: int, metadata: tuple[tuple[str, str], ...], messages: Messages, calls: int) -> Costs:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = signal_pb2_grpc.SignalServiceStub(channel)
        request = signal_pb2.GetSignalRequest(run="abc-1")
        stub.GetSignal(request, metadata=metadata)
        began = time.process_time()
        for _ in range(calls):
            stub.GetSignal(request, metadata=metadata)
        asked = time.process_time()
        routing = routing_pb2_grpc.RoutingServiceStub(channel)
        count = sum(1 for _ in routing.StreamRouting(messages(), metadata=metadata))
        return Costs(message=(time.process_time() - asked) / count, call=(asked - began) / calls)
