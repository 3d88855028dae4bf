"""Of several servers over one store: how many runs are this one's."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pathwatch.server.engine.stats import Stats
from pathwatch.server.exporter.names import PREFIX
from pathwatch.server.store.leases import Leases


class LeaseCollector(Collector):
    """Looks at every scrape."""

    def __init__(self, leases: Leases, stats: Stats) -> None:
        self._leases = leases
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """All families, each once."""
        yield GaugeMetricFamily(
            PREFIX + "owned_runs",
            "Runs whose lease this server holds: no other serves or writes them.",
            value=len(self._leases.held),
        )
        yield CounterMetricFamily(
            PREFIX + "lease_losses",
            "Runs that another server took while this one had them, as after a pause longer than a lease; "
            "lower = better.",
            value=self._stats.lease_losses,
        )
