"""What became of notifications, as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pathwatch.server.exporter.names import PREFIX
from pathwatch.server.notify.counts import DeliveryCounts


class WebhookCollector(Collector):
    """Reads the counts at every scrape."""

    def __init__(self, counts: DeliveryCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """All families, each once."""
        deliveries = CounterMetricFamily(
            PREFIX + "webhook_deliveries",
            "Requests to a webhook, by what became of them: delivered, failed (others may follow); "
            "dropped: notifications given up for good.",
            labels=["webhook", "result"],
        )
        for (webhook, result), count in sorted(self._counts.deliveries.items()):
            deliveries.add_metric([webhook, result], count)
        pending = GaugeMetricFamily(
            PREFIX + "webhook_pending",
            "Changes that a webhook is still to be told of; about 1000 at most are counted.",
            labels=["webhook"],
        )
        for webhook, events in sorted(self._counts.pending.items()):
            pending.add_metric([webhook], events)
        yield from (deliveries, pending)
