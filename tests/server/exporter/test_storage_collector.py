"""Storage as Prometheus reads it."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from pathwatch.server.exporter.storage_collector import StorageCollector
from pathwatch.server.store.answers import StorageInfo
from pathwatch.server.store.interface import StoreError

NOW = 1_700_000_000.0


class ShownStore:
    """Says what a test wants."""

    def __init__(self, shown: StorageInfo | StoreError) -> None:
        self.shown = shown

    def storage(self) -> StorageInfo:
        if isinstance(self.shown, StoreError):
            raise self.shown
        return self.shown


def collected(store: Any) -> dict[str, float]:
    collector = StorageCollector(store, lambda: NOW, snapshot_minutes=1.5)
    return {s.name: s.value for family in collector.collect() for s in family.samples}


def info(taken_at: float | None) -> StorageInfo:
    return StorageInfo(free_bytes=10, size_bytes=100, database_bytes=7, snapshot_taken_at=taken_at)


def test_values() -> None:
    without = {
        "pathwatch_data_folder_free_bytes": 10,
        "pathwatch_data_folder_size_bytes": 100,
        "pathwatch_database_bytes": 7,
        "pathwatch_snapshot_interval_seconds": 90,
    }
    assert collected(ShownStore(info(None))) == without
    assert collected(ShownStore(info(NOW - 90))) == without | {"pathwatch_snapshot_age_seconds": 90}
    assert collected(ShownStore(info(NOW + 5)))["pathwatch_snapshot_age_seconds"] == 0


def test_a_store_that_cannot_be_looked_at_is_absent_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store: Any = ShownStore(StoreError("cannot look at DIR: it is gone"))
    collector = StorageCollector(store, lambda: NOW, snapshot_minutes=0)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            (left,) = [sample for family in collector.collect() for sample in family.samples]
            assert (left.name, left.value) == ("pathwatch_snapshot_interval_seconds", 0)
        assert [record.message for record in caplog.records].count(
            "cannot look at DIR: it is gone; /metrics goes without it"
        ) == 1
        store.shown = info(None)
        assert len([sample for family in collector.collect() for sample in family.samples]) == 4
