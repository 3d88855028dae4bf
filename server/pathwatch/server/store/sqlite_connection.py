"""Connections to the database file, and what their errors mean."""

from __future__ import annotations

import sqlite3
from pathlib import Path

ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What reading a database raises; the latter where a message quotes a damaged name that is no text."""
READ_WRITE = "mode=rw"
"""Never makes a file: one that has gone is an error, not an empty database."""


def connect(path: Path, access: str = READ_WRITE) -> sqlite3.Connection:
    """A connection for any thread, transactions by hand. Raises sqlite3.Error."""
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?{access}", uri=True, isolation_level=None, check_same_thread=False
    )
    db.execute("PRAGMA busy_timeout=10000")
    # Looks each page over when it is read first, so that damage is met as an error and not as wrong rows.
    db.execute("PRAGMA cell_size_check=ON")
    return db


def beside(path: Path) -> tuple[Path, Path]:
    """The write-ahead log and the shared memory that SQLite keeps next to a database."""
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


def read_only(path: Path) -> str:
    """Access that changes nothing; nobody may write meanwhile. No files are made where there is no log."""
    log, _ = beside(path)
    has_log = log.exists() and log.stat().st_size > 0
    return "mode=ro" if has_log else "mode=ro&immutable=1"


def is_damage(error: Exception) -> bool:
    """Whether the file is not as SQLite wrote it; not so where it cannot be read or written just now."""
    if isinstance(error, UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def describe(error: Exception) -> str:
    """The error with SQLite's name for it, which tells a failed fsync from a failed write."""
    name = getattr(error, "sqlite_errorname", None)
    return f"{error} ({name})" if name else str(error)


def integrity_problems(db: sqlite3.Connection) -> list[str]:
    """What PRAGMA integrity_check says, in lines; empty = good. Reads the whole file.

    quick_check takes as long here, where rows are few and large, but misses a page put in another's place.
    """
    try:
        lines = [str(line) for (line,) in db.execute("PRAGMA integrity_check")]
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if not is_damage(error):
            raise
        return [describe(error)]
    return [] if lines == ["ok"] else [" ".join(line.split()) for line in lines]
