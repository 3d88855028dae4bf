"""`/metrics`: everything there is to scrape, in one registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, make_wsgi_app

from pathwatch.server.access.counts import AccessCounts
from pathwatch.server.engine.engine import Engine
from pathwatch.server.exporter.access_collector import AccessCollector
from pathwatch.server.exporter.collector import StateCollector

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication


def metrics_registry(engine: Engine, counts: AccessCounts) -> CollectorRegistry:
    """Everything this process publishes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StateCollector(engine))
    registry.register(AccessCollector(counts))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


def metrics_application(registry: CollectorRegistry) -> WSGIApplication:
    """Answers a scrape in the text format or in OpenMetrics, as the scraper asks for."""
    application: WSGIApplication = make_wsgi_app(registry)
    return application
