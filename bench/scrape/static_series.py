"""What prometheus_client itself takes for as many series that never change."""

from __future__ import annotations

import time

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bench.scrape.scraper import Taken


class StaticSeries(Collector):
    """`series` gauges with a run and a group each, made before anybody asks."""

    def __init__(self, series: int, *, families: int) -> None:
        self._families = []
        for number in range(families):
            family = GaugeMetricFamily(f"static_{number}", "Does not change.", labels=["run", "group"])
            for one in range(series // families):
                family.add_metric([f"run-{one // 8:03d}", f"group-{one % 8}"], one / 7)
            self._families.append(family)

    def collect(self) -> list[Metric]:
        """All of them."""
        return list(self._families)


def write(collector: Collector) -> Taken:
    """Writes the text of all families: no HTTP, no compression."""
    began, cpu = time.perf_counter(), time.thread_time()
    generate_latest(collector)
    return Taken(time.perf_counter() - began, time.thread_time() - cpu)
