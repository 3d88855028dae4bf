"""The store when files cannot grow or be written: nothing half done, and on as soon as there is room."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from small_disk import LimitedFiles, small_disk

from pathwatch.server import failpoints
from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.rows import DeleteRun
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.server.store.sqlite_folder import FILE_NAME
from pathwatch.server.store.sqlite_snapshots import Snapshots

Fill = Callable[..., None]
Content = Callable[[Path], list[str]]


@contextmanager
def no_file_past(size: int) -> Iterator[None]:
    """EFBIG for what this process writes past that many bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_commit_without_room_leaves_nothing_behind(tmp_path: Path, fill: Fill, content: Content) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        fill(store, range(5))
        before = content(tmp_path / FILE_NAME)
        with no_file_past(max(file.stat().st_size for file in tmp_path.iterdir())):
            for _ in range(3):
                with pytest.raises(StoreError, match=r"cannot write .*\(SQLITE_(FULL|IOERR)"):
                    fill(store, range(5, 6), size=1_000_000)
                assert store.runs()[0].step == 4, "reads go on"
                assert len(list(store.windows("run"))) == 5
        assert content(tmp_path / FILE_NAME) == before
        fill(store, range(5, 6), size=1_000_000)
        assert store.runs()[0].step == 5


def test_room_inside_the_files_is_used(tmp_path: Path, fill: Fill) -> None:
    """The log cannot grow; what it holds fits into the database, and it begins anew."""
    with closing(SqliteStore(tmp_path)) as store:
        fill(store, range(20))
        log, database = tmp_path / f"{FILE_NAME}-wal", tmp_path / FILE_NAME
        assert log.stat().st_size > 2 * database.stat().st_size
        with no_file_past(log.stat().st_size):
            with pytest.raises(StoreError):
                fill(store, range(20, 21))
            fill(store, range(20, 25))
        assert store.runs()[0].step == 24


@pytest.mark.slow
def test_the_log_shrinks_again(tmp_path: Path, fill: Fill) -> None:
    """A slow reader lets it grow: nothing it may still need can be overwritten."""
    log = tmp_path / f"{FILE_NAME}-wal"
    with closing(SqliteStore(tmp_path)) as store:
        fill(store, range(3))
        slow = store.windows("run")
        next(slow)
        fill(store, range(3, 60), size=400_000)
        grown = log.stat().st_size
        assert grown > 80 << 20
        slow.close()  # type: ignore[attr-defined]
        fill(store, range(60, 64))
        assert log.stat().st_size <= 64 << 20


def test_deleting_a_run_writes_little(tmp_path: Path, fill: Fill) -> None:
    """Some builds of SQLite fill what is deleted with zeros, which writes as much as there was."""
    with closing(SqliteStore(tmp_path)) as store:
        fill(store, range(20), size=400_000)
    size = (tmp_path / FILE_NAME).stat().st_size
    with closing(SqliteStore(tmp_path)) as store:
        store.commit([DeleteRun(run="run")])
        assert (tmp_path / f"{FILE_NAME}-wal").stat().st_size < size / 10
        fill(store, range(20), size=400_000)
    assert (tmp_path / FILE_NAME).stat().st_size < 1.1 * size, "its room is used again"


def test_an_error_of_the_disk_passes(
    tmp_path: Path, fill: Fill, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        fill(store, range(3))
        before = content(tmp_path / FILE_NAME)
        monkeypatch.setattr(failpoints, "_armed", failpoints.parse("commit.before=error"))
        with pytest.raises(StoreError, match="cannot write"):
            fill(store, range(3, 4))
        assert content(tmp_path / FILE_NAME) == before
        fill(store, range(3, 4))
        assert store.runs()[0].step == 3


def test_a_start_without_room_says_so(tmp_path: Path) -> None:
    """There is not even room for the shared memory of the log."""
    with small_disk(tmp_path / "disk", 1) as disk:
        data = disk.folder / "data"
        SqliteStore(data).close()
        code = (
            "import sys; from pathlib import Path\n"
            "from pathwatch.server.store.interface import StoreError\n"
            "from pathwatch.server.store.sqlite import SqliteStore\n"
            "sys.stdin.readline()\n"
            "try: SqliteStore(Path(sys.argv[1]))\n"
            "except StoreError as error: print(error)"
        )
        starting = subprocess.Popen(
            [sys.executable, "-c", code, str(data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        disk.fill(starting.pid)
        said, _ = starting.communicate("\n", timeout=60)
        disk.free(os.getpid())
        assert f"cannot open {data / FILE_NAME}" in said
        if not isinstance(disk, LimitedFiles):
            assert "the disk is full, free some space" in said
        SqliteStore(data).close()


def test_a_snapshot_without_room_leaves_nothing_behind(tmp_path: Path, fill: Fill) -> None:
    snapshots = Snapshots(tmp_path)
    with closing(SqliteStore(tmp_path)) as store:
        fill(store, range(20))
        kept = snapshots.take(tmp_path / FILE_NAME)
        with no_file_past(4096 * 4), pytest.raises((OSError, sqlite3.Error)) as failed:
            snapshots.take(tmp_path / FILE_NAME)
        assert getattr(failed.value, "errno", errno.EFBIG) == errno.EFBIG
        assert snapshots.all() == [kept]
        assert snapshots.leftovers() == []
