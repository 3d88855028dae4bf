"""Counts of what the server did since it started; written by the writer thread where not said otherwise."""

from __future__ import annotations

import bisect
import logging
import threading
from dataclasses import dataclass, field

from pathwatch.server.engine.refusal import LimitError, RefusedError

log = logging.getLogger("pathwatch.server")

CLOSE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds, seconds."""


@dataclass(slots=True)
class Histogram:
    """Counts of durations by upper bound."""

    bounds: tuple[float, ...] = CLOSE_BUCKETS
    counts: list[int] = field(default_factory=lambda: [0] * (len(CLOSE_BUCKETS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect.bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[float, int]]:
        """(upper bound, durations up to it), the last bound infinite."""
        running, pairs = 0, []
        for bound, count in zip((*self.bounds, float("inf")), tuple(self.counts), strict=True):
            running += count
            pairs.append((bound, running))
        return pairs


@dataclass(slots=True)
class Stats:
    """Ingest and window counters."""

    bytes: int = 0
    """Serialized size of all messages of streams."""
    commit_failures: int = 0
    """Transactions that could not be written."""
    lease_losses: int = 0
    """Runs that another server took while this one had them."""
    window_close: Histogram = field(default_factory=Histogram)
    """Seconds from the close of a round to its durable verdict."""
    limits_hit: dict[str, int] = field(default_factory=dict)
    """Refusals by the name of the limit."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count_limit(self, refusal: RefusedError) -> None:
        """Count a refusal that comes of a limit, from any thread; the first of a limit goes to the log."""
        if not isinstance(refusal, LimitError):
            return
        with self._lock:
            before = self.limits_hit.get(refusal.limit, 0)
            self.limits_hit[refusal.limit] = before + 1
        if not before:
            log.warning(
                "limit %s: %s (more are only counted)", refusal.limit, refusal, extra={"limit": refusal.limit}
            )
