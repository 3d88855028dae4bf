"""Snapshots are whole, checked, few, and in nobody's way."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from warned import warned

from pathwatch.server import failpoints
from pathwatch.server.store import sqlite_snapshots
from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.server.store.sqlite_check import snapshot_findings
from pathwatch.server.store.sqlite_damage import way_back
from pathwatch.server.store.sqlite_folder import FILE_NAME
from pathwatch.server.store.sqlite_restore import restore
from pathwatch.server.store.sqlite_snapshots import (
    FOLDER_NAME,
    KEPT,
    DamagedCopyError,
    SnapshotError,
    Snapshots,
    snapshot_problem,
)

Fill = Callable[..., None]
Content = Callable[[Path], list[str]]
Overwrite = Callable[[Path, int, int], None]


def test_a_snapshot_holds_what_was_committed(tmp_path: Path, fill: Fill, content: Content) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        fill(store, range(20))
        snapshot = Snapshots(tmp_path).take(tmp_path / FILE_NAME)
        assert content(snapshot.path) == content(tmp_path / FILE_NAME)
        fill(store, range(20, 25))
        assert content(snapshot.path) != content(tmp_path / FILE_NAME)
    assert [file.name for file in snapshot.path.parent.iterdir()] == [snapshot.path.name]


@pytest.mark.slow
def test_a_snapshot_taken_while_others_write_is_of_one_moment(
    tmp_path: Path, fill: Fill, eventually: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits go on all the while; in the copy, a step's rows are there all or none."""
    with closing(SqliteStore(tmp_path)) as store:
        fill(store, range(100), size=20_000)
        stop, written = threading.Event(), []

        def write() -> None:
            for step in range(100, 100_000):
                fill(store, range(step, step + 1), size=20_000)
                written.append(step)
                if stop.is_set():
                    return

        writer = threading.Thread(target=write)
        writer.start()
        try:
            snapshots = Snapshots(tmp_path)
            taken = []
            while len(taken) < 3:
                before = len(written)
                # Half of it, and the rest only when somebody has written.
                monkeypatch.setattr(
                    sqlite_snapshots,
                    "reach",
                    lambda _, before=before: eventually(lambda: len(written) > before),
                )
                taken.append(snapshots.take(tmp_path / FILE_NAME, unhurried=True))
                assert len(written) > before, "no commit while the snapshot was taken"
        finally:
            stop.set()
            writer.join()
    for number, snapshot in enumerate(taken[-KEPT:]):
        folder = tmp_path / f"copy-{number}"
        folder.mkdir()
        snapshot.path.rename(folder / FILE_NAME)
        with closing(SqliteStore(folder)) as copy:
            (run,) = copy.runs()
            assert run.step >= 99
            assert [row.step for row in copy.windows("run")] == list(range(run.step + 1))
            assert len(copy.history("run", after_step=-2).signals) == run.step + 1
            assert [row.step for row in copy.batches("run")] == [run.step + 1]


def test_the_newest_ones_are_kept_for_their_owner_alone(tmp_path: Path, fill: Fill) -> None:
    umask = os.umask(0)
    try:
        data = tmp_path / "data"
        with closing(SqliteStore(data)) as store:
            for step in range(4):
                fill(store, range(step, step + 1))
                newest = Snapshots(data).take(data / FILE_NAME)
            files = [path for path in data.rglob("*") if path.is_file()]
            assert {path.name for path in files} >= {FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm"}
            assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o600"}
            assert {oct(path.stat().st_mode & 0o777) for path in (data, data / FOLDER_NAME)} == {"0o700"}
    finally:
        os.umask(umask)
    assert [snapshot.number for snapshot in Snapshots(data).all()] == [3, 4]
    assert newest.number == 4


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    SqliteStore(tmp_path).close()
    (tmp_path / FILE_NAME).chmod(0o644)
    SqliteStore(tmp_path).close()
    assert oct((tmp_path / FILE_NAME).stat().st_mode & 0o777) == "0o600"


def test_a_damaged_copy_is_not_kept(tmp_path: Path, fill: Fill, overwrite: Overwrite) -> None:
    snapshots = Snapshots(tmp_path)
    with closing(SqliteStore(tmp_path)) as store:
        fill(store, range(50))
        good = snapshots.take(tmp_path / FILE_NAME)
        store.commit([])
    overwrite(tmp_path / FILE_NAME, 10 * 4096, 4096)
    with pytest.raises(DamagedCopyError):
        snapshots.take(tmp_path / FILE_NAME)
    assert snapshots.all() == [good]
    assert snapshots.leftovers() == []
    assert snapshots.newest_good() == good


def test_a_damaged_snapshot_is_passed_over(tmp_path: Path, fill: Fill, overwrite: Overwrite) -> None:
    snapshots = Snapshots(tmp_path)
    with closing(SqliteStore(tmp_path)) as store:
        fill(store, range(50))
        older = snapshots.take(tmp_path / FILE_NAME)
        newer = snapshots.take(tmp_path / FILE_NAME)
    overwrite(newer.path, 10 * 4096, 4096)
    assert snapshot_problem(older.path) is None
    assert snapshot_problem(newer.path) is not None
    assert snapshots.newest_good() == older


def test_a_copy_that_cannot_be_read_is_no_damage(
    tmp_path: Path,
    fill: Fill,
    eventually: Callable[[Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Somebody removes the copy before it is checked, or there is no file descriptor left."""
    copied = Snapshots._copy

    def copy(self: Snapshots, database: Path, part: Path, *rest: Any) -> None:
        copied(self, database, part, *rest)
        part.unlink()

    monkeypatch.setattr(Snapshots, "_copy", copy)
    with closing(SqliteStore(tmp_path, snapshot_seconds=0.1)) as store:
        fill(store, range(2))
        eventually(lambda: "no snapshot" in caplog.text)
        fill(store, range(2, 4))
        assert store.runs()[0].step == 3
    assert "SQLITE_CANTOPEN" in caplog.text
    assert "damaged" not in caplog.text


def test_snapshots_that_cannot_be_read_are_not_called_damaged(
    tmp_path: Path, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        fill(store, range(2))
        Snapshots(tmp_path).take(tmp_path / FILE_NAME)

    def fail(*_: object) -> list[str]:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR, "SQLITE_IOERR"
        raise error

    monkeypatch.setattr(sqlite_snapshots, "integrity_problems", fail)
    assert "snapshots cannot be read: disk I/O error" in way_back(tmp_path)
    with pytest.raises(StoreError, match=r"cannot be read: disk I/O error \(SQLITE_IOERR\)"):
        restore(tmp_path)
    with pytest.raises(StoreError, match=r"cannot read .*000001"):
        list(snapshot_findings(tmp_path))


def test_a_snapshot_never_takes_the_last_of_the_disk(
    tmp_path: Path, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not begun where it would leave less than a twentieth; given up where others take the room meanwhile."""
    snapshots = Snapshots(tmp_path)
    with closing(SqliteStore(tmp_path)) as store:
        fill(store, range(400))
        size = sum(path.stat().st_size for path in tmp_path.iterdir())
        real, blocks = list(os.statvfs(tmp_path)), 20 * size // 4096

        def disk(*free_in_sizes: float) -> None:
            """Of twenty times the size of the database; free as told, the last for ever."""
            left = list(free_in_sizes)

            def statvfs(path: object) -> os.statvfs_result:
                free = left.pop(0) if len(left) > 1 else left[0]
                answer = [4096, 4096, blocks, int(free * blocks / 20), int(free * blocks / 20), *real[5:]]
                return os.statvfs_result(answer)

            monkeypatch.setattr(os, "statvfs", statvfs)

        for free in ((1.9,), (2.1, 2.1, 0.9)):
            disk(*free)
            with pytest.raises(SnapshotError, match="MiB free"):
                snapshots.take(tmp_path / FILE_NAME)
            assert snapshots.all() == []
            assert snapshots.leftovers() == []
        disk(2.1, 1.1)
        assert snapshots.take(tmp_path / FILE_NAME).number == 1


# As the server takes them.


def test_they_are_taken_from_time_to_time_where_anything_changed(
    tmp_path: Path, fill: Fill, content: Content, eventually: Callable[..., object]
) -> None:
    idle, busy = tmp_path / "idle", tmp_path / "busy"

    def newest(folder: Path) -> int:
        return max((snapshot.number for snapshot in Snapshots(folder).all()), default=0)

    with (
        closing(SqliteStore(idle, snapshot_seconds=0.05)) as store,
        closing(SqliteStore(busy, snapshot_seconds=0.05)) as other,
    ):
        eventually(lambda: newest(idle) == 1)
        fill(store, range(5))
        eventually(
            lambda: newest(idle) > 1 and content(Snapshots(idle).all()[-1].path) == content(idle / FILE_NAME)
        )
        rested = newest(idle)
        for step in range(6):  # as long as the other, of the same pace, takes six
            fill(other, range(step, step + 1))
            eventually(lambda step=step: newest(busy) > step)
        # One that held everything may have been begun before the last commit was counted.
        assert newest(idle) <= rested + 1, "nothing had changed"


def test_a_restart_does_not_begin_the_time_anew(tmp_path: Path, eventually: Callable[..., object]) -> None:
    with closing(SqliteStore(tmp_path, snapshot_seconds=0.01)):
        eventually(lambda: Snapshots(tmp_path).all())
    newest = Snapshots(tmp_path).all()[-1]
    long_ago = newest.taken_at - 7200
    os.utime(newest.path, (long_ago, long_ago))
    with closing(SqliteStore(tmp_path, snapshot_seconds=3600)):
        eventually(lambda: Snapshots(tmp_path).all()[-1].number > newest.number)


def test_a_stop_gives_a_snapshot_up(
    tmp_path: Path,
    fill: Fill,
    eventually: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    take = Snapshots.take

    def until_told(self: Snapshots, database: Path, *, stopping: Callable[[], bool], **how: bool) -> object:
        """Half of it, and the rest only once the server stops."""
        monkeypatch.setattr(sqlite_snapshots, "reach", lambda place: eventually(stopping))
        return take(self, database, stopping=stopping, **how)

    monkeypatch.setattr(Snapshots, "take", until_told)
    with closing(SqliteStore(tmp_path)) as store:
        fill(store, range(40))
    store = SqliteStore(tmp_path, snapshot_seconds=0.01)
    eventually(lambda: Snapshots(tmp_path).leftovers())
    store.close()
    assert Snapshots(tmp_path).all() == []
    assert Snapshots(tmp_path).leftovers() == []
    assert warned(caplog) == []


def test_one_that_fails_is_tried_again(
    tmp_path: Path,
    eventually: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(failpoints, "_armed", failpoints.parse("snapshot.middle=error"))
    with closing(SqliteStore(tmp_path, snapshot_seconds=0.01)):
        eventually(lambda: Snapshots(tmp_path).all())
    assert Snapshots(tmp_path).leftovers() == []
    (warning,) = warned(caplog)
    assert "no snapshot" in warning
    assert "failpoint snapshot.middle" in warning


def test_damage_that_a_snapshot_meets_stops_commits(
    tmp_path: Path, fill: Fill, overwrite: Overwrite, eventually: Callable[..., object]
) -> None:
    """Before that, only what nobody reads is damaged: the store itself would not notice."""
    with closing(SqliteStore(tmp_path)) as store:
        fill(store, range(400), run="old")
    with closing(SqliteStore(tmp_path, snapshot_seconds=0.05)) as store:
        eventually(lambda: Snapshots(tmp_path).all())
        overwrite(tmp_path / FILE_NAME, 200 * 4096, 4096)

        def refused() -> str:
            try:
                fill(store, range(1))
            except StoreError as error:
                return str(error)
            return ""

        said = str(eventually(refused))
        assert f"{FILE_NAME} is damaged" in said
        assert "--restore" in said
        assert store.runs()


TAKE = """
import signal, sys
from pathlib import Path
from pathwatch.server.store.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]), snapshot_seconds=0.01)
signal.pause()
"""


def test_killed_in_the_middle(tmp_path: Path, fill: Fill, content: Content) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        fill(store, range(50))
        good = Snapshots(tmp_path).take(tmp_path / FILE_NAME)
    before = content(tmp_path / FILE_NAME)
    done = subprocess.run(
        [sys.executable, "-c", TAKE, str(tmp_path)],
        env={**os.environ, failpoints.VARIABLE: "snapshot.middle=kill"},
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL
    snapshots = Snapshots(tmp_path)
    assert snapshots.leftovers()
    assert snapshots.all() == [good]
    with closing(SqliteStore(tmp_path)):
        assert snapshots.leftovers() == []
    assert content(tmp_path / FILE_NAME) == before


def test_no_thread_is_left(tmp_path: Path) -> None:
    others = set(threading.enumerate())
    store = SqliteStore(tmp_path, snapshot_seconds=0.01)
    # Threads of other tests may come and go meanwhile.
    new = set(threading.enumerate()) - others
    (ours,) = (thread for thread in new if thread.name == "pathwatch-snapshots")
    store.close()
    assert not ours.is_alive()
