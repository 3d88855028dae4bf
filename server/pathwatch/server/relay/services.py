"""The services of a relay."""

from __future__ import annotations

import grpc

from pathwatch.server.api.age import ConnectionAge
from pathwatch.server.config import RelayConfig
from pathwatch.server.engine.stats import Stats
from pathwatch.server.relay.counts import RelayCounts
from pathwatch.server.relay.passing import OpenStreams, passing_handlers
from pathwatch.server.relay.routing import RelayedRouting
from pathwatch.server.relay.upstream import Upstream
from pathwatch.v1 import routing_pb2_grpc, run_pb2, signal_pb2


class RelayServices:
    """Answers with what servers answer. Made and used on the event loop."""

    def __init__(self, config: RelayConfig, upstream: Upstream, stats: Stats, counts: RelayCounts) -> None:
        age = ConnectionAge(config.max_connection_age_seconds)
        self._upstream = upstream
        self._routing = RelayedRouting(upstream, config.limits, age, stats, counts)
        self._streams = OpenStreams()
        self._passing = [
            passing_handlers(service, upstream, self._streams)
            for file in (run_pb2, signal_pb2)
            for service in file.DESCRIPTOR.services_by_name.values()
        ]

    def add_to(self, server: grpc.aio.Server) -> None:
        """Have them called."""
        routing_pb2_grpc.add_RoutingServiceServicer_to_server(self._routing, server)
        server.add_generic_rpc_handlers(tuple(self._passing))

    def drain(self) -> None:
        """Let streams end with all they sent acknowledged, and others at once."""
        self._upstream.drain()
        self._routing.drain()
        self._streams.drain()

    def close(self) -> None:
        """Let go of the decoding thread."""
        self._routing.close()
