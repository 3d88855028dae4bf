"""The services of a server that has runs of its own."""

from __future__ import annotations

import grpc

from pathwatch.server.api.age import ConnectionAge
from pathwatch.server.api.routing import RoutingService
from pathwatch.server.api.runs import RunService
from pathwatch.server.api.signals import SignalService
from pathwatch.server.config import ServerConfig
from pathwatch.server.engine.engine import Engine
from pathwatch.server.store.interface import Store
from pathwatch.v1 import routing_pb2_grpc, run_pb2_grpc, signal_pb2_grpc


class RunServices:
    """Answers from an engine and its store. Made and used on the event loop."""

    def __init__(self, config: ServerConfig, engine: Engine, store: Store) -> None:
        age = ConnectionAge(config.max_connection_age_seconds)
        self._routing = RoutingService(engine, config.limits, age)
        self._runs = RunService(engine, store, config.limits)
        self._signals = SignalService(engine, store, config.limits, age)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Have them called."""
        routing_pb2_grpc.add_RoutingServiceServicer_to_server(self._routing, server)
        run_pb2_grpc.add_RunServiceServicer_to_server(self._runs, server)
        signal_pb2_grpc.add_SignalServiceServicer_to_server(self._signals, server)

    def drain(self) -> None:
        """Let streams end with all they sent acknowledged, and watches at once."""
        self._routing.drain()
        self._signals.drain()

    def close(self) -> None:
        """Let go of the decoding thread."""
        self._routing.close()
