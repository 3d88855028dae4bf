"""From a file to a database that can be written: whose it is, whether it is whole, which version."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path

from pathwatch.server.failpoints import reach
from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.schema import APPLICATION_ID, MIGRATIONS, SCHEMA, VERSION
from pathwatch.server.store.sqlite_connection import ERRORS, connect, describe, integrity_problems, is_damage
from pathwatch.server.store.sqlite_damage import damage_message, way_back
from pathwatch.server.store.sqlite_folder import make_file, make_private
from pathwatch.server.store.sqlite_snapshots import SnapshotError, Snapshots

log = logging.getLogger("pathwatch.server")

CHECKED_WHOLE = 64 << 20
"""Largest file, in bytes, that is checked whole at the start: half a second from a cold disk."""
_LOG_BYTES = 64 << 20
"""A write-ahead log that has grown beyond, under a slow reader, shrinks again."""
_LOG_PAGES_COPIED = 8192
"""Pages in the log, 32 MiB of 4 KiB, from which on a commit copies them into the database. Observations come
and go with their windows: what is deleted before then is never copied, and the rest with fewer fsyncs."""
_FULL_DISK = 1 << 20
"""Bytes; with less free, SQLite's errors come from a full disk, whatever they say."""


def open_database(path: Path, snapshots: Snapshots) -> sqlite3.Connection:
    """The connection that writes, to a whole database of this version's schema.

    A new file is made; an older schema is migrated, after a snapshot. The folder must be locked.
    Raises StoreError.
    """
    try:
        snapshots.clean()
        make_file(path)
        db = connect(path)
        try:
            _prepare(db, path, snapshots)
        except BaseException:
            db.close()
            raise
    except (*ERRORS, OSError) as error:
        if is_damage(error):
            raise StoreError(damage_message(path, describe(error))) from error
        raise StoreError(f"cannot open {path}: {describe(error)}{_full_disk(path)}") from error
    return db


def identify(db: sqlite3.Connection, path: Path) -> int:
    """The version of the file's schema; 0 = an empty file. Raises StoreError for a file that is not ours."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    application = db.execute("PRAGMA application_id").fetchone()[0]
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not tables:
        return 0
    if application != APPLICATION_ID:
        raise StoreError(f"{path} belongs to another program; give another --data")
    if version > VERSION:
        raise StoreError(
            f"{path} was written by a newer pathwatch (schema {version}, "
            f"this one knows {VERSION}); upgrade pathwatch or give another --data"
        )
    return version


def _prepare(db: sqlite3.Connection, path: Path, snapshots: Snapshots) -> None:
    db.execute("PRAGMA synchronous=FULL")
    # Some builds overwrite what is deleted with zeros: to delete a run would write as much as the run was.
    db.execute("PRAGMA secure_delete=OFF")
    db.execute(f"PRAGMA journal_size_limit={_LOG_BYTES}")
    db.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES_COPIED}")
    version = identify(db, path)
    make_private(path)
    if version == 0:
        if snapshots.all():
            raise StoreError(
                f"{path} is missing or empty, but there are snapshots of it; {way_back(path.parent)}"
            )
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(
            f"BEGIN; {SCHEMA} PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={VERSION}; COMMIT;"
        )
        return
    _check(db, path)
    db.execute("PRAGMA journal_mode=WAL")
    _empty_the_log(db, path)
    if version < VERSION:
        _migrate(db, path, version, snapshots)


def _check(db: sqlite3.Connection, path: Path) -> None:
    """What can be checked in a moment; the rest is left to snapshots and `pathwatch fsck`."""
    if path.stat().st_size <= CHECKED_WHOLE:
        if problems := integrity_problems(db):
            raise StoreError(damage_message(path, problems[0]))
        return
    for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall():
        db.execute(f'SELECT * FROM "{table}" NOT INDEXED LIMIT 1').fetchone()  # noqa: S608


def _empty_the_log(db: sqlite3.Connection, path: Path) -> None:
    """Bring what a server that was killed has left in the log into the database, through an fsync of it.

    Where an fsync of the log had failed, the system takes what was not written for written: only what is
    written anew reaches the disk.
    """
    try:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except ERRORS as error:
        if is_damage(error):
            raise
        log.warning("the log of %s cannot be emptied: %s", path, describe(error))


def _migrate(db: sqlite3.Connection, path: Path, version: int, snapshots: Snapshots) -> None:
    """All steps in one transaction, so that a file is never between versions."""
    try:
        snapshot = snapshots.take(path)
    except SnapshotError as error:
        raise StoreError(
            f"{path} has schema {version} and is to become {VERSION}, but no snapshot of it can be taken "
            f"first: {error}"
        ) from error
    log.info("%s: from schema %d to %d; as it was: %s", path, version, VERSION, snapshot)
    steps = " ".join(MIGRATIONS[older] for older in range(version, VERSION))
    db.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version={VERSION};")
    reach("migration.middle")
    db.execute("COMMIT")


def _full_disk(path: Path) -> str:
    disk = os.statvfs(path.parent)
    return "; the disk is full, free some space" if disk.f_bavail * disk.f_frsize < _FULL_DISK else ""
