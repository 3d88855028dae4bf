"""A whole server in this process, and a rank that speaks the protocol by hand."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import Limits, ServerConfig
from pathwatch.v1 import routing_pb2, routing_pb2_grpc, run_pb2, run_pb2_grpc, signal_pb2_grpc

Payload = (
    routing_pb2.StreamHello
    | routing_pb2.ObservationBatch
    | routing_pb2.Watermark
    | routing_pb2.ExpertGeometry
    | routing_pb2.Withheld
    | None
)


@dataclass
class Stream:
    """One call of StreamRouting."""

    stub: routing_pb2_grpc.RoutingServiceStub
    sequence: int = 0
    responses: list[routing_pb2.StreamRoutingResponse] = field(default_factory=list)
    _requests: queue.SimpleQueue[routing_pb2.StreamRoutingRequest | None] = field(
        default_factory=queue.SimpleQueue
    )
    metadata: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        self.call = self.stub.StreamRouting(
            iter(self._requests.get, None), timeout=60, metadata=self.metadata
        )

    def send(self, payload: Payload, sequence: int | None = None) -> int:
        """Sends the next message, or one under a sequence of choice."""
        name = {
            routing_pb2.StreamHello: "hello",
            routing_pb2.ObservationBatch: "batch",
            routing_pb2.Watermark: "watermark",
            routing_pb2.ExpertGeometry: "geometry",
            routing_pb2.Withheld: "withheld",
        }.get(type(payload), "")
        if sequence is None:
            self.sequence += 0 if name in ("hello", "withheld") else 1
            sequence = 0 if name == "withheld" else self.sequence
        fields = {name: payload} if name else {}
        self._requests.put(routing_pb2.StreamRoutingRequest(sequence=sequence, **fields))  # type: ignore[arg-type]
        return sequence

    def hello(self, run: str = "run", **fields: object) -> None:
        known: dict[str, object] = {"run": run, "world_size": 1, "session": "life"}
        self.send(routing_pb2.StreamHello(**(known | fields)))  # type: ignore[arg-type]

    def await_ack(self, sequence: int) -> list[routing_pb2.Rejection]:
        """Rejections up to the acknowledgement of a message."""
        rejections = []
        for response in self.call:
            self.responses.append(response)
            rejections.extend(response.rejections)
            if response.acked_sequence >= sequence:
                return rejections
        raise AssertionError("the stream ended")

    def finish(self) -> None:
        """Sends no more and reads to the end."""
        self._requests.put(None)
        self.responses.extend(self.call)

    def error(self) -> grpc.RpcError:
        """How the call ended."""
        try:
            self.responses.extend(self.call)
        except grpc.RpcError as error:
            return error
        raise AssertionError("the stream ended well")


@dataclass
class Service:
    """Stubs of one server."""

    grpc_address: str
    http_address: str
    channel: grpc.Channel
    drain: Callable[[], None]
    """Ends the server, as SIGTERM does."""

    def __post_init__(self) -> None:
        self.routing = routing_pb2_grpc.RoutingServiceStub(self.channel)
        self.runs = run_pb2_grpc.RunServiceStub(self.channel)
        self.signals = signal_pb2_grpc.SignalServiceStub(self.channel)

    def create(self, name: str = "run", **config: object) -> run_pb2.Run:
        fields: dict[str, object] = {"topology": run_pb2.Topology(layers=2, experts=4)} | config
        request = run_pb2.CreateRunRequest(name=name, config=run_pb2.RunConfig(**fields))  # type: ignore[arg-type]
        return self.runs.CreateRun(request, timeout=30).run

    def stream(self) -> Stream:
        return Stream(self.routing)

    def get(self, name: str = "run") -> run_pb2.Run:
        return self.runs.GetRun(run_pb2.GetRunRequest(name=name), timeout=30).run


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts servers; each is drained at the end of the test."""
    with ExitStack() as servers:

        def start(limits: Limits | None = None, **options: Any) -> Service:
            options = {"data": tmp_path / "data", "drain_seconds": 10} | options
            own = servers.enter_context(ExitStack())
            server = own.enter_context(BackgroundServer(ServerConfig(limits=limits or Limits(), **options)))
            channel = own.enter_context(grpc.insecure_channel(server.grpc_address))
            return Service(server.grpc_address, server.http_address, channel, own.close)

        yield start


@pytest.fixture
def service(serve: Callable[..., Service]) -> Service:
    return serve()


@pytest.fixture
def make_stream() -> Callable[..., Stream]:
    """Opens a stream on any channel, with metadata."""
    return lambda channel, metadata=(): Stream(
        routing_pb2_grpc.RoutingServiceStub(channel), metadata=metadata
    )
