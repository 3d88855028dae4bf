"""Leases as Prometheus reads them."""

from __future__ import annotations

from memory_leases import LeaseTable, MemoryLeases

from pathwatch.server.engine.stats import Stats
from pathwatch.server.exporter.lease_collector import LeaseCollector


def test_values() -> None:
    table, stats = LeaseTable(), Stats()
    leases = MemoryLeases(table, "a:1")
    collector = LeaseCollector(leases, stats)

    def collected() -> dict[str, float]:
        return {s.name: s.value for family in collector.collect() for s in family.samples}

    assert collected() == {"pathwatch_owned_runs": 0, "pathwatch_lease_losses_total": 0}
    for run in ("one", "two"):
        leases.take(run)
    stats.lease_losses += 1
    assert collected() == {"pathwatch_owned_runs": 2, "pathwatch_lease_losses_total": 1}
