"""What was refused past a limit, as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from pathwatch.server.config import meanings
from pathwatch.server.engine.stats import Stats
from pathwatch.server.exporter.names import PREFIX


class LimitCollector(Collector):
    """Reads the counts at every scrape."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """The family."""
        limits = CounterMetricFamily(
            PREFIX + "limit_refusals",
            "Refusals past a limit, by the limit (docs/operations.md); lower = better.",
            labels=["limit"],
        )
        for limit in meanings():  # at 0 too: a counter that appears with its first refusals hides these
            limits.add_metric([limit], self._stats.limits_hit.get(limit, 0))
        yield limits
