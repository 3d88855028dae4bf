"""State in one SQLite file: every commit is on disk when it returns."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from pathwatch.server.failpoints import reach
from pathwatch.server.store.answers import StorageInfo
from pathwatch.server.store.interface import StoreError, UnstorableError
from pathwatch.server.store.rows import Write
from pathwatch.server.store.sqlite_connection import ERRORS
from pathwatch.server.store.sqlite_damage import damage_message
from pathwatch.server.store.sqlite_folder import FILE_NAME, FolderLock, make_folder
from pathwatch.server.store.sqlite_opening import open_database
from pathwatch.server.store.sqlite_reads import SqliteReader
from pathwatch.server.store.sqlite_snapshot_thread import SnapshotThread
from pathwatch.server.store.sqlite_snapshots import Snapshots
from pathwatch.server.store.sqlite_storage import storage_info
from pathwatch.server.store.sqlite_writes import apply

log = logging.getLogger("pathwatch.server")

_OF_A_VALUE = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
"""Errors that say nothing of file and disk; text and integers beyond SQLite raise others, of Python."""


class SqliteStore(SqliteReader):
    """`Store` on the standard library's sqlite3, write-ahead log, synchronous=FULL."""

    remedy = (
        "with the server stopped, `pathwatch fsck` on the data folder says what is damaged and restores a "
        "snapshot"
    )

    def __init__(self, folder: Path, *, snapshot_seconds: float = 0.0) -> None:
        """Takes the folder for itself, and a snapshot of the database every so often (0 = never).

        Raises StoreError.
        """
        super().__init__(folder / FILE_NAME)
        make_folder(folder)
        self._lock = FolderLock(folder)
        self._snapshot_thread: SnapshotThread | None = None
        self._commits = 0
        try:
            self._snapshots = Snapshots(folder)
            self._writer = open_database(self._path, self._snapshots)
            self._file = self._file_now()
            if snapshot_seconds:
                self._snapshot_thread = SnapshotThread(
                    self._path,
                    self._snapshots,
                    snapshot_seconds,
                    changes=lambda: self._commits,
                    damaged=self._found_damaged,
                )
        except BaseException:
            self._lock.close()
            raise

    def commit(self, writes: Sequence[Write]) -> None:
        if self._damage is not None:
            raise StoreError(self._damage)
        db = self._writer
        try:
            self._require_file()
            db.execute("BEGIN IMMEDIATE")
            for write in writes:
                apply(db, write)
            reach("commit.before")
            db.execute("COMMIT")
            reach("commit.after")
        except Exception as error:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            if isinstance(error, StoreError):
                raise
            if isinstance(error, _OF_A_VALUE) or not isinstance(error, (*ERRORS, OSError, MemoryError)):
                raise UnstorableError(
                    f"cannot write to {self._path}, now or ever: {type(error).__name__}: {error}"
                ) from error
            # On a full disk the log may still be copied into pages that the database has, and begin anew.
            with contextlib.suppress(sqlite3.Error):
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            raise self._failure("write", error) from error
        self._commits += 1

    def take_up(self, run: str) -> None:
        """Nobody else writes to the file."""

    def let_go(self, run: str) -> None:
        """Nobody else writes to the file."""

    def storage(self) -> StorageInfo:
        return storage_info(self._path, self._snapshots)

    def close(self) -> None:
        if self._snapshot_thread is not None:
            self._snapshot_thread.stop()
        self._writer.close()
        self._lock.close()

    def _found_damaged(self, what: str) -> None:
        """The check of a snapshot found damage: what is committed from now on might be lost with the rest."""
        self._damage = damage_message(self._path, what)
        log.error("%s; nothing is acknowledged any more", self._damage)

    def _file_now(self) -> tuple[int, int]:
        stat = self._path.stat()
        return stat.st_dev, stat.st_ino

    def _require_file(self) -> None:
        """SQLite goes on writing to a file that was removed, where nobody will find it."""
        try:
            same = self._file_now() == self._file
        except FileNotFoundError:
            same = False
        if not same:
            raise StoreError(
                f"{self._path} was removed or replaced while the server used it; put it back, or restart "
                "the server"
            )
