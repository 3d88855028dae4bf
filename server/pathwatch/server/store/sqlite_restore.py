"""Puts a snapshot in the place of a damaged database, which is kept."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.sqlite_connection import ERRORS, beside, describe
from pathwatch.server.store.sqlite_folder import FILE_NAME, sync
from pathwatch.server.store.sqlite_snapshots import Snapshot, Snapshots

_ASIDE = "damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was put in place, and where what stood there is."""

    snapshot: Snapshot
    aside: Path | None
    """None = there was no database."""


def restore(folder: Path) -> Restored:
    """Put a copy of the newest good snapshot in place. The folder must be locked. Raises StoreError.

    Cut off anywhere, the folder holds the old database or the new one, and can be restored again.
    """
    try:
        snapshot = Snapshots(folder).newest_good()
    except ERRORS as error:
        raise StoreError(f"snapshots of {folder} cannot be read: {describe(error)}") from error
    if snapshot is None:
        raise StoreError(f"{folder} has no good snapshot to restore")
    path = folder / FILE_NAME
    try:
        return Restored(snapshot=snapshot, aside=_put_in_place(snapshot.path, path))
    except OSError as error:
        raise StoreError(f"cannot restore {snapshot.path}: {error}") from error


def _put_in_place(snapshot: Path, path: Path) -> Path | None:
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    shutil.copyfile(snapshot, new)
    sync(new)
    aside = _free_name(path) if path.exists() and path.stat().st_size else None
    # The log first: SQLite would play it into whatever database it finds beside it.
    log, memory = beside(path)
    if aside is not None and log.exists():
        log.rename(beside(aside)[0])
    log.unlink(missing_ok=True)
    memory.unlink(missing_ok=True)
    # A second name, so that there is a database under the first at every moment.
    if aside is not None:
        aside.hardlink_to(path)
    new.replace(path)
    sync(path.parent)
    return aside


def _free_name(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.{_ASIDE}-{number}")).exists():
        number += 1
    return aside
