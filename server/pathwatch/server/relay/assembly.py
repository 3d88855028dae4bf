"""A whole relay: gRPC and HTTP, and what is behind them."""

from __future__ import annotations

from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry

from pathwatch.server.access.counts import AccessCounts
from pathwatch.server.api.call_counts import CallCounts
from pathwatch.server.api.server import GrpcServer
from pathwatch.server.config import RelayConfig
from pathwatch.server.engine.stats import Stats
from pathwatch.server.exporter.endpoint import metrics_application, register_serving
from pathwatch.server.relay.collector import RelayCollector
from pathwatch.server.relay.counts import RelayCounts
from pathwatch.server.relay.services import RelayServices
from pathwatch.server.relay.upstream import Upstream
from pathwatch.server.web.server import HttpServer, Route


def assemble_relay(config: RelayConfig, closing: AsyncExitStack) -> tuple[HttpServer, GrpcServer]:
    """`closing` takes it down again in the right order. Raises what its servers raise, and ValueError where
    `config.upstream` is of no known form."""
    upstream = Upstream(config)
    closing.push_async_callback(upstream.close)
    access, calls, stats, counts = AccessCounts(), CallCounts(), Stats(), RelayCounts()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RelayCollector(counts))
    register_serving(registry, stats, access, calls)
    http = HttpServer(config, [Route("/metrics", metrics_application(registry))], access)
    closing.callback(http.close)
    services = RelayServices(config, upstream, stats, counts)
    return http, GrpcServer(config, services, stats, access, calls)
