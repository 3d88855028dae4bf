"""Servers that share runs, as far as a test wants them to: who has the run is said by the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from pathwatch.v1 import (
    routing_pb2,
    routing_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
    signal_pb2,
    signal_pb2_grpc,
)

_RUN = run_pb2.Run(
    name="run",
    config=run_pb2.RunConfig(
        topology=run_pb2.Topology(layers=2, experts=4),
        mode=run_pb2.OBSERVATION_MODE_STREAM,
        window_steps=10,
        capacity=4,
    ),
)


@dataclass
class StandIn(
    run_pb2_grpc.RunServiceServicer,
    signal_pb2_grpc.SignalServiceServicer,
    routing_pb2_grpc.RoutingServiceServicer,
):
    """Has every run, or says who does."""

    owner: str | None = None
    """Who is said to have it."""
    times: int = 1 << 30
    """How often that is said; then it has the run itself, as when a lease has run out."""
    asked: int = 0
    """Calls so far."""
    answering: threading.Event = field(default_factory=threading.Event)
    """Cleared, GetRun waits for it."""
    moved: threading.Event = field(default_factory=threading.Event)
    """Once set, the owner is named to those who watch, too; where there is none, they are told nothing of
    where to go."""
    revision: int = 1
    """Of the signal that is given."""

    def __post_init__(self) -> None:
        self.answering.set()

    def GetRun(self, request: Any, context: Any) -> run_pb2.GetRunResponse:
        self._claim(context)
        self.answering.wait(60)
        return run_pb2.GetRunResponse(run=_RUN)

    def WatchSignals(self, request: Any, context: Any) -> Iterator[signal_pb2.WatchSignalsResponse]:
        if not self.moved.is_set():
            self._claim(context)
            yield signal_pb2.WatchSignalsResponse(signal=signal_pb2.Signal(revision=self.revision))
            self.moved.wait(60)
        self._refuse(context)

    def StreamRouting(
        self, requests: Iterator[routing_pb2.StreamRoutingRequest], context: Any
    ) -> Iterator[routing_pb2.StreamRoutingResponse]:
        self._claim(context)
        for request in requests:
            yield routing_pb2.StreamRoutingResponse(acked_sequence=request.sequence)

    def _claim(self, context: Any) -> None:
        self.asked += 1
        if self.owner is not None and self.asked <= self.times:
            self._refuse(context)

    def _refuse(self, context: Any) -> None:
        if self.owner is None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
        context.set_trailing_metadata((("pathwatch-owner", self.owner),))
        context.abort(grpc.StatusCode.UNAVAILABLE, f"run 'run' is served by {self.owner}; connect there")


@contextmanager
def serving(stand_in: StandIn, *, credentials: grpc.ServerCredentials | None = None) -> Iterator[str]:
    """Its address, while it answers."""
    server = grpc.server(ThreadPoolExecutor(8))
    run_pb2_grpc.add_RunServiceServicer_to_server(stand_in, server)
    signal_pb2_grpc.add_SignalServiceServicer_to_server(stand_in, server)
    routing_pb2_grpc.add_RoutingServiceServicer_to_server(stand_in, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        stand_in.moved.set()
        stand_in.answering.set()
        server.stop(None).wait()
