"""What the store says of its room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.server.store.sqlite_folder import FILE_NAME
from pathwatch.server.store.sqlite_snapshots import Snapshots


def test_room_is_that_of_the_file_system_and_of_the_files(tmp_path: Path, fill: Callable[..., None]) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        before = store.storage()
        fill(store, range(3))
        after = store.storage()
        files = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
        disk = os.statvfs(tmp_path)
    assert after.database_bytes == files[FILE_NAME] + files[f"{FILE_NAME}-wal"] > before.database_bytes
    assert after.size_bytes == disk.f_blocks * disk.f_frsize
    assert 0 < after.free_bytes < after.size_bytes
    assert after.snapshot_taken_at is None


def test_the_newest_snapshot_counts(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        snapshots = Snapshots(tmp_path)
        for taken_at in (1_600_000_000, 1_700_000_000):
            os.utime(snapshots.take(tmp_path / FILE_NAME).path, (taken_at, taken_at))
        assert store.storage().snapshot_taken_at == 1_700_000_000


def test_a_folder_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with closing(SqliteStore(folder)) as store:
        shutil.rmtree(folder)
        with pytest.raises(StoreError, match="No such file"):
            store.storage()
