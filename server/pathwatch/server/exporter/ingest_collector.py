"""What the process received and made durable, all runs together."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pathwatch.server.engine.stats import Stats
from pathwatch.server.exporter.buckets import buckets_of
from pathwatch.server.exporter.names import PREFIX


class IngestCollector(Collector):
    """Reads the engine's counts at every scrape."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """All families, each once."""
        stats = self._stats
        yield CounterMetricFamily(
            PREFIX + "ingest_bytes",
            "Bytes of all messages received on streams, as serialized.",
            value=stats.bytes,
        )
        yield CounterMetricFamily(
            PREFIX + "commit_failures",
            "Transactions that could not be written; nothing is acknowledged meanwhile. 0 = good.",
            value=stats.commit_failures,
        )
        yield HistogramMetricFamily(
            PREFIX + "window_close_seconds",
            "Seconds from the close of a round of windows to its durable verdict; lower = faster.",
            buckets=buckets_of(stats.window_close),
            sum_value=stats.window_close.total,
        )
