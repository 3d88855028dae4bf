"""The data folder: which files are in it, who may read them, and the lock that one server holds."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.sqlite_connection import beside

FILE_NAME = "pathwatch.sqlite3"
LOCK_NAME = "lock"


class FolderLock:
    """Holds a data folder for this process until `close`; the system releases it for one that dies."""

    def __init__(self, folder: Path) -> None:
        """Raises StoreError where another process holds it, or there is no such folder."""
        try:
            self._fd = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"cannot use {folder} for data: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise StoreError(
                f"another pathwatch server uses {folder}; stop it or give another --data"
            ) from error

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._fd)


def make_folder(folder: Path) -> None:
    """A new folder is for its owner alone; one that is there stays as it is. Raises StoreError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot use {folder} for data: {error.strerror}") from error


def make_file(path: Path) -> None:
    """An empty database file for its owner alone, where there is none. Raises OSError.

    Only before the process opens the database: closing any handle on the file drops SQLite's locks on it.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def make_private(path: Path) -> None:
    """Nobody but their owner reads the database and what SQLite keeps beside it, which takes after it."""
    for file in (path, *beside(path)):
        # Of another owner where a group shares a volume: then it is theirs to set.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            file.chmod(0o600)


def sync(path: Path) -> None:
    """Bring a file or folder to the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
