"""Files that change while they are in use."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from pathwatch.server.access import reloading
from pathwatch.server.access.reloading import Reloaded


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time as the code sees it; the test moves it on."""
    now = [0.0]
    monkeypatch.setattr(reloading, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


class Watched:
    def __init__(self, *paths: Path) -> None:
        self.failures = 0
        self.failing = False
        self.reads = 0
        self.paths = paths
        self.value = Reloaded("the numbers", paths, self.read, self.report)

    def read(self) -> list[int]:
        self.reads += 1
        return [int(path.read_text()) for path in self.paths]

    def report(self, failing: bool) -> None:
        self.failures += failing
        self.failing = failing


def replace_file(path: Path, content: str) -> None:
    new = path.with_name("new")
    new.write_text(content)
    os.replace(new, path)


def test_a_change_is_seen_within_a_second_and_read_once(tmp_path: Path, clock: list[float]) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    watched = Watched(path)
    replace_file(path, "2")
    assert watched.value.current() == [1]
    clock[0] += reloading.CHECK_SECONDS
    assert watched.value.current() == [2]
    for _ in range(10):
        clock[0] += reloading.CHECK_SECONDS
        assert watched.value.current() == [2]
    assert (watched.reads, watched.failures) == (2, 0)


def test_what_cannot_be_read_leaves_the_former_and_is_said_once(
    tmp_path: Path, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    watched = Watched(path)
    for broken in (lambda: replace_file(path, "one"), path.unlink):
        broken()
        caplog.clear()
        with caplog.at_level(logging.INFO, "pathwatch.server"):
            for _ in range(3):
                clock[0] += reloading.CHECK_SECONDS
                assert watched.value.current() == [1]
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert "the numbers changed and cannot be used, the former stays in force" in record.getMessage()
    assert watched.failures == 2
    replace_file(path, "3")
    clock[0] += reloading.CHECK_SECONDS
    assert watched.value.current() == [3]


def test_a_read_that_failed_is_tried_again_though_the_files_stay_the_same(
    tmp_path: Path, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """Too many open files, or rights that a chmod mends: else a withdrawn token would open doors for ever."""
    path = tmp_path / "file"
    path.write_text("1")

    class Barred(Watched):
        bars = False

        def read(self) -> list[int]:
            if self.bars:
                raise PermissionError(13, "Permission denied")
            return super().read()

    watched = Barred(path)
    replace_file(path, "2")
    for round_ in range(2):
        watched.bars = True
        for _ in range(3):
            clock[0] += reloading.CHECK_SECONDS
            assert watched.value.current() == [1 + round_]
        assert (watched.failures, len(caplog.records)) == (1 + round_, 1 + round_)
        watched.bars = False
        clock[0] += reloading.CHECK_SECONDS
        assert watched.value.current() == [2 + round_]
        replace_file(path, "3")


def test_a_file_that_goes_and_comes_back_and_goes_is_said_twice(tmp_path: Path, clock: list[float]) -> None:
    path, away = tmp_path / "file", tmp_path / "away"
    path.write_text("1")
    watched = Watched(path)
    for failures in (1, 2):
        path.rename(away)
        for _ in range(2):
            clock[0] += reloading.CHECK_SECONDS
            assert watched.value.current() == [1]
        assert watched.failures == failures
        away.rename(path)
        clock[0] += reloading.CHECK_SECONDS
        assert watched.value.current() == [1]


def test_whether_the_newest_change_is_in_force(tmp_path: Path, clock: list[float]) -> None:
    path, away = tmp_path / "file", tmp_path / "away"
    path.write_text("1")
    watched = Watched(path)

    def failing_after(change: Callable[[], object]) -> bool:
        change()
        for _ in range(2):
            clock[0] += reloading.CHECK_SECONDS
            watched.value.current()
        return watched.failing

    assert not failing_after(lambda: replace_file(path, "2"))
    assert failing_after(lambda: path.rename(away))
    assert not failing_after(lambda: away.rename(path)), "it is the one in force"
    assert failing_after(lambda: replace_file(path, "two"))
    assert failing_after(lambda: path.rename(away))
    assert failing_after(lambda: away.rename(path)), "it came back as wrong as it was"
    assert failing_after(lambda: replace_file(path, "three"))
    assert not failing_after(lambda: replace_file(path, "4"))
    assert watched.failures == 4


def test_links_that_are_swapped_as_kubernetes_does(tmp_path: Path, clock: list[float]) -> None:
    """Files are links into ..data, which is a link to a folder that a rename replaces."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        for name in ("a", "b"):
            (tmp_path / version / name).write_text(version)
    (tmp_path / "..data").symlink_to("1")
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    watched = Watched(tmp_path / "a", tmp_path / "b")
    assert watched.value.current() == [1, 1]
    (tmp_path / "..data_tmp").symlink_to("2")
    os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
    clock[0] += reloading.CHECK_SECONDS
    assert watched.value.current() == [2, 2]


def test_files_that_change_while_they_are_read_are_read_again(tmp_path: Path, clock: list[float]) -> None:
    """Else a certificate could be used with the key of the next."""
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("1")
    second.write_text("1")

    class Torn(Watched):
        def read(self) -> list[int]:
            values = super().read()
            if self.reads == 2:  # the first was the old one, the second is not any more
                replace_file(second, "22")
            return values

    watched = Torn(first, second)
    replace_file(first, "22")
    clock[0] += reloading.CHECK_SECONDS
    assert watched.value.current() == [1, 1]
    clock[0] += reloading.CHECK_SECONDS
    assert watched.value.current() == [22, 22]


def test_an_event_loop_is_not_held_up_by_reading(tmp_path: Path, clock: list[float]) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    turned, read_in = threading.Event(), []

    class Slow(Watched):
        def read(self) -> list[int]:
            read_in.append(threading.current_thread())
            assert len(read_in) == 1 or turned.wait(30), "the loop did not turn meanwhile"
            return super().read()

    watched = Slow(path)
    replace_file(path, "2")

    async def ask() -> list[int]:
        asked = asyncio.create_task(watched.value.newest())
        await asyncio.sleep(0)
        turned.set()
        return await asked

    assert asyncio.run(watched.value.newest()) == [1]
    clock[0] += reloading.CHECK_SECONDS
    assert asyncio.run(ask()) == [2]
    assert read_in[1] is not threading.main_thread()


def test_files_are_read_while_all_threads_of_the_loop_are_taken(tmp_path: Path, clock: list[float]) -> None:
    """And calls that come meanwhile do not queue up behind the file."""
    path = tmp_path / "file"
    path.write_text("1")
    reading, released = threading.Event(), threading.Event()

    class Slow(Watched):
        def read(self) -> list[int]:
            if self.reads:
                reading.set()
                assert released.wait(30)
            return super().read()

    watched = Slow(path)
    replace_file(path, "2")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        taken = loop.run_in_executor(None, released.wait, 30)
        clock[0] += reloading.CHECK_SECONDS
        first = asyncio.create_task(watched.value.newest())
        while not reading.is_set():
            await asyncio.sleep(0)
            assert not taken.done()
        assert await watched.value.newest() == [1]
        assert not first.done()
        released.set()
        assert await first == [2]
        await taken

    asyncio.run(main())


def test_what_cannot_be_read_at_first_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Watched(tmp_path / "none")
