"""A damaged database is refused, or found out while it is used; the way back is said, and leads back."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pathwatch.server.store import sqlite_opening
from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.server.store.sqlite_folder import FILE_NAME, FolderLock
from pathwatch.server.store.sqlite_restore import restore
from pathwatch.server.store.sqlite_snapshots import Snapshots

PAGE = 4096
Fill = Callable[..., None]
Content = Callable[[Path], list[str]]
Overwrite = Callable[[Path, int, int], None]


@pytest.fixture
def good(tmp_path: Path, fill: Fill) -> Path:
    """A folder with a database without free pages, and nothing in the log."""
    folder = tmp_path / "good"
    with closing(SqliteStore(folder)) as store:
        fill(store, range(40))
    with closing(sqlite3.connect(folder / FILE_NAME)) as db:
        db.execute("VACUUM")
    return folder


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Callable[[], Path]:
    """A fresh copy of the good folder."""
    made = iter(range(1_000_000))

    def copy() -> Path:
        return Path(shutil.copytree(good, tmp_path / f"copy-{next(made)}"))

    return copy


def test_no_page_can_be_lost(copy: Callable[[], Path]) -> None:
    """Each page of the file in turn, as a disk loses them: zeros, noise, or the bytes of another page."""
    pages = (copy() / FILE_NAME).stat().st_size // PAGE
    assert pages > 60
    noise = random.Random(3)  # noqa: S311
    for page in range(pages):
        folder = copy()
        whole = (folder / FILE_NAME).read_bytes()
        other = whole[((page + pages // 2) % pages) * PAGE :][:PAGE]
        lost = (bytes(PAGE), noise.randbytes(PAGE), other)[page % 3]
        if _is_overflow(whole, page):
            continue  # bytes of a blob: its length and place are right, so only decoders may see it
        damaged = whole[: page * PAGE] + lost + whole[(page + 1) * PAGE :]
        (folder / FILE_NAME).write_bytes(damaged)
        with pytest.raises(StoreError, match=rf"{FILE_NAME} (is damaged|belongs to|is missing)"):
            SqliteStore(folder)
        assert (folder / FILE_NAME).read_bytes() == damaged, "what is refused is left as it is"
        shutil.rmtree(folder)


def _is_overflow(whole: bytes, page: int) -> bool:
    return page > 0 and whole[page * PAGE] not in (2, 5, 10, 13)


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_bytes_anywhere_never_more_than_refused(copy: Callable[[], Path], data: st.DataObject) -> None:
    """Whatever is overwritten or cut off: the store opens and answers, or says what is wrong."""
    folder = copy()
    whole = bytearray((folder / FILE_NAME).read_bytes())
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(1, len(whole) - 1)) :]
    else:
        offset = data.draw(st.integers(0, len(whole) - 1))
        whole[offset : offset + 64] = data.draw(st.binary(min_size=1, max_size=64))
    (folder / FILE_NAME).write_bytes(whole)
    try:
        with closing(SqliteStore(folder)) as store:
            for run in store.runs():
                for read in (store.batches, store.windows, store.observations):
                    list(read(run.name))
                store.geometries(run.name)
    except (StoreError, ValueError):  # ValueError: text that is no longer JSON, which recovery names
        pass
    shutil.rmtree(folder)


def test_cut_off_files_are_refused(copy: Callable[[], Path]) -> None:
    pages = (copy() / FILE_NAME).stat().st_size // PAGE
    for left in (1, pages // 2, pages - 1):
        folder = copy()
        with (folder / FILE_NAME).open("r+b") as file:
            file.truncate(left * PAGE)
        with pytest.raises(StoreError, match="is damaged"):
            SqliteStore(folder)


def test_large_files_are_looked_at_where_it_is_quick(
    copy: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root of each table, and with it the header and the length of the file."""
    monkeypatch.setattr(sqlite_opening, "CHECKED_WHOLE", 0)
    folder = copy()
    with closing(sqlite3.connect(folder / FILE_NAME)) as db:
        roots = dict(db.execute("SELECT name, rootpage FROM sqlite_master WHERE type='table'"))
    assert len(roots) > 10
    whole = (folder / FILE_NAME).read_bytes()
    for root in roots.values():
        damaged = whole[: (root - 1) * PAGE] + b"\xff" * PAGE + whole[root * PAGE :]
        (folder / FILE_NAME).write_bytes(damaged)
        with pytest.raises(StoreError, match="is damaged"):
            SqliteStore(folder)
    (folder / FILE_NAME).write_bytes(whole)
    SqliteStore(folder).close()


def test_the_message_leads_back(copy: Callable[[], Path], content: Content, fill: Fill) -> None:
    folder = copy()
    with closing(SqliteStore(folder)) as store:
        snapshots = Snapshots(folder)
        good = snapshots.take(folder / FILE_NAME)
        wanted = content(good.path)
        fill(store, range(40, 45))
        bad = snapshots.take(folder / FILE_NAME)
    for path in (bad.path, folder / FILE_NAME):
        whole = bytearray(path.read_bytes())
        whole[20 * PAGE : 21 * PAGE] = b"\xff" * PAGE
        path.write_bytes(whole)
    damaged = (folder / FILE_NAME).read_bytes()
    with pytest.raises(StoreError) as refused:
        SqliteStore(folder)
    said = str(refused.value)
    assert str(folder / FILE_NAME) in said
    assert str(good.path) in said, "the newest one that is good"
    assert f"`pathwatch fsck {folder} --restore`" in said
    assert "\n" not in said
    with closing(FolderLock(folder)):
        restored = restore(folder)
    assert restored.snapshot == good
    assert restored.aside is not None
    assert restored.aside.read_bytes() == damaged
    assert content(folder / FILE_NAME) == wanted
    with closing(SqliteStore(folder)) as store:
        assert store.runs()[0].step == 39


def test_a_log_of_the_damaged_database_is_not_played_into_the_restored_one(
    copy: Callable[[], Path], content: Content, fill: Fill, tmp_path: Path
) -> None:
    folder = copy()
    store = SqliteStore(folder)
    good = Snapshots(folder).take(folder / FILE_NAME)
    fill(store, range(40, 60))
    crashed = Path(shutil.copytree(folder, tmp_path / "crashed"))
    store.close()
    assert (crashed / f"{FILE_NAME}-wal").stat().st_size > 0
    with closing(FolderLock(crashed)):
        restored = restore(crashed)
    assert restored.aside is not None
    assert content(crashed / FILE_NAME) == content(good.path)
    assert "60" in re.findall(r"'run',\d+,(\d+)", "\n".join(content(restored.aside))), "its log went with it"


def test_a_log_without_its_database_is_not_played_into_the_restored_one(
    copy: Callable[[], Path], content: Content, fill: Fill, tmp_path: Path
) -> None:
    folder = copy()
    store = SqliteStore(folder)
    good = Snapshots(folder).take(folder / FILE_NAME)
    fill(store, range(40, 60))
    crashed = Path(shutil.copytree(folder, tmp_path / "crashed"))
    store.close()
    (crashed / FILE_NAME).unlink()
    with closing(FolderLock(crashed)):
        restore(crashed)
    assert content(crashed / FILE_NAME) == content(good.path)


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_database_that_is_gone_is_not_begun_anew(
    copy: Callable[[], Path], content: Content, how: str
) -> None:
    folder = copy()
    with closing(SqliteStore(folder)):
        snapshot = Snapshots(folder).take(folder / FILE_NAME)
    (folder / FILE_NAME).unlink()
    if how == "empty":
        (folder / FILE_NAME).touch()
    with pytest.raises(StoreError, match=r"missing or empty.*snapshots.*--restore"):
        SqliteStore(folder)
    with closing(FolderLock(folder)):
        assert restore(folder).aside is None
    assert content(folder / FILE_NAME) == content(snapshot.path)
    SqliteStore(folder).close()


# While it is used.


@pytest.mark.slow
def test_damage_met_by_a_commit_stops_commits(tmp_path: Path, fill: Fill, overwrite: Overwrite) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        fill(store, range(400), run="old", size=20_000)
        fill(store, range(3))
    with closing(SqliteStore(tmp_path)) as store:
        Snapshots(tmp_path).take(tmp_path / FILE_NAME)
        size = (tmp_path / FILE_NAME).stat().st_size
        overwrite(tmp_path / FILE_NAME, 20 * PAGE, size - 20 * PAGE)
        for _ in range(2):
            with pytest.raises(StoreError, match=r"is damaged .*malformed.*--restore"):
                fill(store, range(3, 4))
        with pytest.raises(StoreError, match="is damaged"):
            list(store.windows("old"))
        with pytest.raises(StoreError, match="is damaged"):
            store.commit([])


def test_damage_met_by_a_reader_stops_commits(tmp_path: Path, fill: Fill, overwrite: Overwrite) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        fill(store, range(400), run="old", size=20_000)
    with closing(SqliteStore(tmp_path)) as store:
        fill(store, range(3))
        overwrite(tmp_path / FILE_NAME, 100 * PAGE, 500 * PAGE)
        fill(store, range(3, 4))
        with pytest.raises(StoreError, match="is damaged"):
            list(store.observations("old"))
        with pytest.raises(StoreError, match="is damaged"):
            fill(store, range(4, 5))
        assert {run.name: run.step for run in store.runs()} == {"old": 399, "run": 3}, "others read on"


def test_a_file_that_is_taken_away_gets_no_commits(tmp_path: Path, fill: Fill) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        fill(store, range(3))
        away = (tmp_path / FILE_NAME).rename(tmp_path / "away")
        with pytest.raises(StoreError, match="removed or replaced"):
            fill(store, range(3, 4))
        with pytest.raises(StoreError):
            store.runs()
        shutil.copy(away, tmp_path / FILE_NAME)
        with pytest.raises(StoreError, match="removed or replaced"):
            fill(store, range(3, 4))
        away.rename(tmp_path / FILE_NAME)
        fill(store, range(3, 5))
        assert store.runs()[0].step == 4
