"""`/metrics`: everything there is to scrape, in one registry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from pathwatch.server.access.counts import AccessCounts
from pathwatch.server.api.call_counts import CallCounts
from pathwatch.server.config import ServerConfig
from pathwatch.server.engine.engine import Engine
from pathwatch.server.engine.stats import Stats
from pathwatch.server.exporter.access_collector import AccessCollector
from pathwatch.server.exporter.grpc_collector import GrpcCollector
from pathwatch.server.exporter.ingest_collector import IngestCollector
from pathwatch.server.exporter.lease_collector import LeaseCollector
from pathwatch.server.exporter.limit_collector import LimitCollector
from pathwatch.server.exporter.scrapes import BusyError, Scrapes
from pathwatch.server.exporter.state_collector import StateCollector
from pathwatch.server.exporter.storage_collector import StorageCollector
from pathwatch.server.store.interface import Store
from pathwatch.server.web.answers import answer, answer_text

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


def metrics_registry(
    config: ServerConfig, engine: Engine, store: Store, counts: AccessCounts, calls: CallCounts
) -> CollectorRegistry:
    """Everything this process publishes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(
        StateCollector(
            engine,
            series_groups=config.limits.series_groups,
            finished_series_seconds=config.finished_series_seconds,
        )
    )
    registry.register(IngestCollector(engine.stats))
    if engine.leases is not None:
        registry.register(LeaseCollector(engine.leases, engine.stats))
    registry.register(
        StorageCollector(store, engine.now, config.snapshot_minutes if config.takes_snapshots else 0)
    )
    register_serving(registry, engine.stats, counts, calls)
    return registry


def register_serving(
    registry: CollectorRegistry, stats: Stats, counts: AccessCounts, calls: CallCounts
) -> None:
    """What every process that serves calls publishes of itself."""
    registry.register(LimitCollector(stats))
    registry.register(AccessCollector(counts))
    registry.register(GrpcCollector(calls))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)


def metrics_application(registry: CollectorRegistry) -> WSGIApplication:
    """Answers a scrape in the text format or in OpenMetrics, as the scraper asks for."""
    scrapes = Scrapes(registry)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET":
            allow = [("Allow", "GET")]
            return answer_text(start_response, "405 Method Not Allowed", "use GET\n", headers=allow)
        try:
            scrape = scrapes.answer(environ.get("HTTP_ACCEPT", ""), environ.get("HTTP_ACCEPT_ENCODING", ""))
        except BusyError as error:
            return answer_text(start_response, "503 Service Unavailable", f"{error}\n")
        headers = [("Vary", "Accept, Accept-Encoding")]
        if scrape.is_gzip:
            headers.append(("Content-Encoding", "gzip"))
        return answer(start_response, "200 OK", scrape.body, scrape.content_type, headers=headers)

    return application
