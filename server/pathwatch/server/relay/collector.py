"""What passed a relay, as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from pathwatch.server.exporter.names import PREFIX
from pathwatch.server.relay.counts import RelayCounts


class RelayCollector(Collector):
    """Reads the counts at every scrape."""

    def __init__(self, counts: RelayCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """All families, each once."""
        observations = CounterMetricFamily(
            PREFIX + "relay_observations",
            "Observations that ranks sent, by what became of them: forwarded, or cut: no window keeps them.",
            labels=["result"],
        )
        observations.add_metric(["forwarded"], self._counts.forwarded)
        observations.add_metric(["cut"], self._counts.cut)
        size = CounterMetricFamily(
            PREFIX + "relay_bytes",
            "Bytes of messages received from ranks, and of what was forwarded of them, as serialized.",
            labels=["direction"],
        )
        size.add_metric(["received"], self._counts.received_bytes)
        size.add_metric(["forwarded"], self._counts.forwarded_bytes)
        yield from (observations, size)
