"""How much room the database takes, and how much is left."""

from __future__ import annotations

import os
from pathlib import Path

from pathwatch.server.store.answers import StorageInfo
from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.sqlite_connection import beside
from pathwatch.server.store.sqlite_snapshots import Snapshots


def storage_info(database: Path, snapshots: Snapshots) -> StorageInfo:
    """What the file system says; neither opens the database nor waits for its writer. Raises StoreError."""
    log, _ = beside(database)
    try:
        disk = os.statvfs(database.parent)
        size = database.stat().st_size + (log.stat().st_size if log.exists() else 0)
        taken = [snapshot.taken_at for snapshot in snapshots.all()]
    except OSError as error:
        raise StoreError(f"cannot look at {database}: {error.strerror}") from error
    return StorageInfo(
        free_bytes=disk.f_bavail * disk.f_frsize,
        size_bytes=disk.f_blocks * disk.f_frsize,
        database_bytes=size,
        snapshot_taken_at=taken[-1] if taken else None,
    )
