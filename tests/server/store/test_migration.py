"""A file of an older version becomes one of today, whole or not at all, and can be had back."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pathwatch.server import failpoints
from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.schema import VERSION
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.server.store.sqlite_folder import FILE_NAME
from pathwatch.server.store.sqlite_snapshots import Snapshots

STORES = Path(__file__).parents[2] / "data" / "stores"
Content = Callable[[Path], list[str]]

OPEN = """
import sys
from pathlib import Path
from pathwatch.server.store.sqlite import SqliteStore
SqliteStore(Path(sys.argv[1])).close()
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with a file of version 1."""
    folder = tmp_path / "old"
    folder.mkdir()
    with closing(sqlite3.connect(folder / FILE_NAME)) as db:
        db.executescript((STORES / "version-1.sql").read_text())
        db.execute("PRAGMA journal_mode=WAL")
    return folder


def open_killed_halfway(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(folder)],
        env={**os.environ, failpoints.VARIABLE: "migration.middle=kill"},
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL


def test_the_old_file_is_kept_as_a_snapshot(old: Path, content: Content) -> None:
    before = content(old / FILE_NAME)
    SqliteStore(old).close()
    (snapshot,) = Snapshots(old).all()
    assert content(snapshot.path) == before
    assert content(old / FILE_NAME)[-1] == f"({VERSION},)"
    SqliteStore(old).close()
    assert Snapshots(old).all() == [snapshot], "a file of today needs none"


def test_killed_in_the_middle(old: Path, tmp_path: Path, content: Content) -> None:
    before = content(old / FILE_NAME)
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    (undisturbed / FILE_NAME).write_bytes((old / FILE_NAME).read_bytes())
    SqliteStore(undisturbed).close()
    for _ in range(2):
        open_killed_halfway(old)
        assert content(old / FILE_NAME) == before
    SqliteStore(old).close()
    assert content(old / FILE_NAME) == content(undisturbed / FILE_NAME)
    assert all(content(snapshot.path) == before for snapshot in Snapshots(old).all())


def test_an_error_in_the_middle(old: Path, content: Content, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(old / FILE_NAME)
    monkeypatch.setattr(failpoints, "_armed", failpoints.parse("migration.middle=error"))
    with pytest.raises(StoreError, match=r"cannot open .*failpoint migration\.middle"):
        SqliteStore(old)
    assert content(old / FILE_NAME) == before
    SqliteStore(old).close()


def test_without_room_for_the_snapshot_nothing_is_migrated(
    old: Path, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(old / FILE_NAME)
    full = list(os.statvfs(old))
    full[4] = 0
    with monkeypatch.context() as patched:
        patched.setattr(os, "statvfs", lambda path: os.statvfs_result(full))
        with pytest.raises(StoreError, match=r"schema 1 .*no snapshot.*0 MiB free"):
            SqliteStore(old)
    assert content(old / FILE_NAME) == before
