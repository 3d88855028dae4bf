"""Histograms as prometheus_client wants them."""

from __future__ import annotations

from pathwatch.server.engine.stats import Histogram


def buckets_of(histogram: Histogram) -> list[tuple[str, float]]:
    """Upper bounds, the last one infinite, and how many durations were within."""
    return [
        ("+Inf" if bound == float("inf") else str(bound), count) for bound, count in histogram.cumulative()
    ]
