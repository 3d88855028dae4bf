"""What only the SQLite store can go wrong in."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.rows import BatchRow, PutBatch
from pathwatch.server.store.schema import VERSION
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.server.store.sqlite_folder import FILE_NAME

STORES = Path(__file__).parents[2] / "data" / "stores"


def test_two_servers_cannot_share_a_folder(tmp_path: Path) -> None:
    with (
        closing(SqliteStore(tmp_path)),
        pytest.raises(StoreError, match=r"another pathwatch server uses .*--data"),
    ):
        SqliteStore(tmp_path)
    SqliteStore(tmp_path).close()


def test_a_file_of_version_1_is_taken_over(tmp_path: Path) -> None:
    """Written by pathwatch before there were kept observations; a newer one takes it up where it stood."""
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        db.executescript((STORES / "version-1.sql").read_text())
    for _ in range(2):  # the second time it is a file of today
        with closing(SqliteStore(tmp_path)) as store:
            (run,) = store.runs()
            assert (run.name, run.closed_step, run.groups) == ("old", 20, ("math",))
            assert [(row.step, bool(row.evidence)) for row in store.windows("old")] == [
                (10, True),
                (20, True),
            ]
            assert [row.step for row in store.batches("old")] == [30]
            assert [point.tag for point in store.checkpoints("old")] == ["step-20"]
            assert list(store.observations("old")) == []
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
        taken_over = tables(db)
    SqliteStore(tmp_path / "new").close()
    with closing(sqlite3.connect(tmp_path / "new" / FILE_NAME)) as db:
        assert taken_over == tables(db)


def tables(db: sqlite3.Connection) -> dict[str, str]:
    rows = db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {name: " ".join(sql.split()) for name, sql in rows}


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    SqliteStore(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        db.execute(f"PRAGMA user_version={VERSION + 1}")
    with pytest.raises(StoreError, match="newer pathwatch"):
        SqliteStore(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION + 1,)


def test_what_a_killed_server_left_in_the_log_is_brought_into_the_database(tmp_path: Path) -> None:
    """By writing: what an fsync has failed for reaches the disk in no other way."""
    killed = tmp_path / "killed"
    with closing(SqliteStore(tmp_path / "data")) as store:
        store.commit(
            [PutBatch(row=BatchRow(run="run", attempt=0, step=step, batch=b"b")) for step in range(9)]
        )
        shutil.copytree(tmp_path / "data", killed)
    log = killed / f"{FILE_NAME}-wal"
    assert log.stat().st_size > 0
    with closing(SqliteStore(killed)) as store:
        assert log.stat().st_size == 0
        assert len(list(store.batches("run"))) == 9


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"not a database " * 1000)
    with pytest.raises(StoreError, match=r"is damaged \(file is not a database.*no good snapshot.*move"):
        SqliteStore(tmp_path)


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        db.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(StoreError, match="another program"):
        SqliteStore(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("recipes",)]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot use .*file/data"):
        SqliteStore(tmp_path / "file" / "data")


def test_a_failed_start_gives_the_folder_back(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"not a database " * 1000)
    with pytest.raises(StoreError):
        SqliteStore(tmp_path)
    (tmp_path / FILE_NAME).unlink()
    SqliteStore(tmp_path).close()
