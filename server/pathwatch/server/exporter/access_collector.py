"""Who was turned away, and which files could not be read again, as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pathwatch.server.access.counts import AccessCounts
from pathwatch.server.exporter.names import PREFIX


class AccessCollector(Collector):
    """Reads the counts at every scrape."""

    def __init__(self, counts: AccessCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """All families, each once."""
        refused = CounterMetricFamily(
            PREFIX + "refused_calls",
            "Calls turned away for want of a token, or of a right; lower = better.",
            labels=["listener", "reason"],
        )
        for listener in ("grpc", "http"):
            for reason in ("unauthenticated", "forbidden"):
                refused.add_metric([listener, reason], self._counts.refused.get((listener, reason), 0))
        failures = CounterMetricFamily(
            PREFIX + "reload_failures",
            "Changes of a file that could not be used; the former stays in force. 0 = good.",
            labels=["file"],
        )
        failing = GaugeMetricFamily(
            PREFIX + "reload_failing",
            "1 while the newest change of a file cannot be used and the former stays in force, else 0. "
            "0 = good.",
            labels=["file"],
        )
        for file in ("tls", "tokens", "http_tokens", "webhooks"):
            failures.add_metric([file], self._counts.reload_failures.get(file, 0))
            failing.add_metric([file], file in self._counts.reload_failing)
        yield from (refused, failures, failing)
