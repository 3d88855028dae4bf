"""Copies of the database as it was, checked, in a folder beside it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pathwatch.server.failpoints import reach
from pathwatch.server.store.schema import APPLICATION_ID
from pathwatch.server.store.sqlite_connection import (
    ERRORS,
    beside,
    connect,
    describe,
    integrity_problems,
    is_damage,
    read_only,
)
from pathwatch.server.store.sqlite_folder import sync

FOLDER_NAME = "snapshots"
KEPT = 2
"""Snapshots kept, the newest ones."""
_SUFFIX = ".sqlite3"
_PART = ".part"
_PAGES = 256
"""Copied at a time, 1 MiB, then brought to the disk: left to the system, the writes of a whole copy would
hold up the fsync of commits."""
_RESERVE = 20
"""A snapshot leaves at least this part of the disk free, one twentieth."""


class SnapshotError(Exception):
    """No snapshot was taken; the message says why."""


class DamagedCopyError(SnapshotError):
    """The copy is damaged, and so is what was copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A copy of the database, whole when it was written."""

    path: Path
    number: int
    """Rises with every snapshot of a folder; clocks may go back."""
    size: int
    """Bytes."""
    taken_at: float
    """Seconds since the epoch."""

    def __str__(self) -> str:
        taken = datetime.fromtimestamp(self.taken_at, UTC).isoformat(" ", "seconds")
        return f"{self.path} ({self.size} bytes, taken {taken})"


class Snapshots:
    """The snapshots of a data folder. `take` is called by one thread at a time."""

    def __init__(self, data: Path) -> None:
        self._folder = data / FOLDER_NAME

    def all(self) -> list[Snapshot]:
        """Oldest first, good or not."""
        paths = [path for path in self._folder.glob(f"*{_SUFFIX}") if path.stem.isdecimal()]
        found = []
        for path in sorted(paths, key=lambda path: int(path.stem)):
            with contextlib.suppress(FileNotFoundError):  # dropped for a newer one meanwhile
                stat = path.stat()
                found.append(
                    Snapshot(path=path, number=int(path.stem), size=stat.st_size, taken_at=stat.st_mtime)
                )
        return found

    def newest_good(self) -> Snapshot | None:
        """The newest one that passes the check; reads it whole. Raises sqlite3.Error where that fails."""
        return next((one for one in reversed(self.all()) if not snapshot_problem(one.path)), None)

    def leftovers(self) -> list[Path]:
        """What a process that died while it took a snapshot has left."""
        return sorted(self._folder.glob(f"*{_PART}*"))

    def clean(self) -> None:
        """Remove leftovers. Raises OSError."""
        for path in self.leftovers():
            path.unlink(missing_ok=True)

    def take(
        self, database: Path, *, stopping: Callable[[], bool] = lambda: False, unhurried: bool = False
    ) -> Snapshot:
        """Copy the database as it is now, check and keep the copy, and drop all but the newest ones.

        Others read and write the database meanwhile. `unhurried` rests as long as it works, for their sake.
        Raises SnapshotError, also once `stopping`; sqlite3.Error and OSError where the disk fails.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        size = sum(path.stat().st_size for path in (database, *beside(database)[:1]) if path.exists())
        self._require_space(size)
        known = self.all()
        path = self._folder / f"{known[-1].number + 1 if known else 1:06d}{_SUFFIX}"
        part = path.with_name(path.name + _PART)
        try:
            os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
            self._copy(database, part, stopping, unhurried)
            if problem := snapshot_problem(part):
                raise DamagedCopyError(problem)
            sync(part)
            part.rename(path)
            sync(self._folder)
        except BaseException:
            self.clean()
            raise
        *_, newest = kept = self.all()
        for old in kept[:-KEPT]:
            old.path.unlink()
        return newest

    def _copy(self, database: Path, part: Path, stopping: Callable[[], bool], unhurried: bool) -> None:
        fd = os.open(part, os.O_RDWR | os.O_CLOEXEC)
        halfway = False
        begun = time.monotonic()

        def copied(status: int, remaining: int, total: int) -> None:
            nonlocal halfway, begun
            os.fdatasync(fd)
            if not halfway and 2 * remaining <= total:
                halfway = True
                reach("snapshot.middle")
            if stopping():
                raise SnapshotError("the server stops")
            self._require_space(0)
            if unhurried:
                time.sleep(time.monotonic() - begun)
            begun = time.monotonic()

        try:
            with closing(connect(database)) as source, closing(connect(part)) as copy:
                # Without a transaction that lasts, every commit would make the copy begin anew.
                source.execute("BEGIN")
                source.execute("SELECT 1 FROM sqlite_master").fetchone()
                copy.execute("PRAGMA journal_mode=OFF")
                copy.execute("PRAGMA synchronous=OFF")
                source.backup(copy, pages=_PAGES, progress=copied)
                source.execute("COMMIT")
                # One file that needs no log beside it.
                copy.execute("PRAGMA journal_mode=DELETE")
        finally:
            os.close(fd)

    def _require_space(self, size: int) -> None:
        disk = os.statvfs(self._folder)
        free, reserve = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize // _RESERVE
        if free - size < reserve:
            raise SnapshotError(
                f"{self._folder} has {free >> 20} MiB free; a snapshot takes {size >> 20} MiB and leaves "
                f"{reserve >> 20} MiB to the data"
            )


def snapshot_problem(path: Path) -> str | None:
    """What is wrong with a snapshot; None = it is good. Reads it whole.

    Raises sqlite3.Error where it cannot be read just now, which says nothing about it.
    """
    try:
        with closing(connect(path, read_only(path))) as db:
            if db.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
                return "it is not a database of pathwatch"
            problems = integrity_problems(db)
    except ERRORS as error:
        if not is_damage(error):
            raise
        return describe(error)
    return problems[0] if problems else None
