"""Room taken and left where the state is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pathwatch.server.exporter.names import PREFIX
from pathwatch.server.store.interface import Store, StoreError

log = logging.getLogger("pathwatch.server")


class StorageCollector(Collector):
    """Asks the store at every scrape; what cannot be looked at has no series."""

    def __init__(self, store: Store, now: Callable[[], float], snapshot_minutes: float) -> None:
        """`now` gives seconds since the epoch; a snapshot is taken every so many minutes, 0 = never."""
        self._snapshot_seconds = 60 * snapshot_minutes
        self._store = store
        self._now = now
        self._failing = False

    def collect(self) -> Iterator[Metric]:
        """All families, each once."""
        free = GaugeMetricFamily(
            PREFIX + "data_folder_free_bytes",
            "Free bytes of the file system that holds the data folder, or of the Redis that is the store; "
            "higher = better.",
        )
        size = GaugeMetricFamily(
            PREFIX + "data_folder_size_bytes",
            "Size of that file system, or of that Redis (its memory limit), in bytes.",
        )
        database = GaugeMetricFamily(
            PREFIX + "database_bytes",
            "Size of the database and its write-ahead log, or the memory that Redis uses, in bytes; "
            "lower = more room.",
        )
        age = GaugeMetricFamily(
            PREFIX + "snapshot_age_seconds",
            "Seconds since the newest snapshot of the database was taken; lower = fresher, absent = none.",
        )
        interval = GaugeMetricFamily(
            PREFIX + "snapshot_interval_seconds",
            "Seconds from one snapshot of a database that changes to the next, as configured; "
            "0 = none are taken.",
            value=self._snapshot_seconds,
        )
        try:
            storage = self._store.storage()
        except StoreError as error:
            if not self._failing:
                log.warning("%s; /metrics goes without it", error)
            self._failing = True
        else:
            self._failing = False
            free.add_metric([], storage.free_bytes)
            size.add_metric([], storage.size_bytes)
            database.add_metric([], storage.database_bytes)
            if storage.snapshot_taken_at is not None:
                age.add_metric([], max(0.0, self._now() - storage.snapshot_taken_at))
        yield from (free, size, database, age, interval)
