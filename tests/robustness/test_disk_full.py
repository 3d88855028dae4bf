"""The disk is full: acknowledgements stop, reads go on, training notices nothing; with room all is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from job import differences
from serving import CONFIG, Serving, fsck, said, serving, train, wait
from small_disk import Disk, LimitedFiles, small_disk

from pathwatch.client import Client, RoutingStream

Undisturbed = Callable[[int], Mapping[str, bytes]]
ALL = range(90)
BEFORE = range(15)


@pytest.fixture(params=["file size limit", "file system"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if request.param == "file size limit":
        (tmp_path / "disk").mkdir()
        yield LimitedFiles(tmp_path / "disk")
        return
    with small_disk(tmp_path / "disk", 64) as disk:
        yield disk


def train_until_stuck(stream: RoutingStream, server: Serving, step: int) -> int:
    """Trains on from `step` until nothing of a step can be stored; the next step. Files have room in them,
    and a disk that takes no more of one message may take a smaller one."""
    while True:
        failures, acked = server.commit_failures(), stream.stats.acked
        assert step < ALL.stop, "there was room for everything"
        train(stream, range(step, step + 1))
        step += 1
        wait(lambda a=acked, f=failures: stream.stats.acked >= a + 3 or server.commit_failures() >= f + 3)
        if stream.stats.acked == acked:
            return step


@pytest.mark.robustness
def test_a_full_disk_stops_acknowledgements_alone(
    disk: Disk, tmp_path: Path, undisturbed_serving: Undisturbed
) -> None:
    data = disk.folder / "data"
    with serving(data, tmp_path / "log") as server:
        pid = server.process.pid
        stream = RoutingStream(server.address, run="run", config=CONFIG)
        train(stream, BEFORE)
        assert stream.flush(60)
        with Client(server.address, timeout=60) as client:
            wait(lambda: client.get_run("run").closed_step == BEFORE[-1])
        step = BEFORE.stop
        for _ in range(3):
            disk.fill(pid)
            step = train_until_stuck(stream, server, step)
            failures, acked = server.commit_failures(), stream.stats.acked
            with Client(server.address, timeout=60) as client:  # reads go on
                assert client.get_signal("run").run == "run"
                assert client.get_metrics("run").windows
                assert len(list(client.get_observations("run"))) >= len(BEFORE)
                assert client.get_run("run").step < step - 1, "what is not stored is not shown either"
            wait(lambda failures=failures: server.commit_failures() >= failures + 2)
            assert stream.stats.acked == acked
            disk.free(pid)
            assert stream.flush(60), "it recovers by itself"
        train(stream, range(step, ALL.stop))
        assert stream.flush(60)
        stats = stream.stats
        assert (stats.dropped_steps, stats.rejected) == (0, 0)
        stream.close()
        with Client(server.address, timeout=60) as client:
            client.finish_run("run")
        assert differences(said(server.address), undisturbed_serving(len(ALL))) == []
        server.stop()
    log = (tmp_path / "log").read_text()
    assert log.count("nothing is acknowledged") == log.count("can be written again") >= 3
    assert fsck(data) == f"{data} is good\n"


@pytest.mark.robustness
def test_killed_while_the_disk_is_full(disk: Disk, tmp_path: Path, undisturbed_serving: Undisturbed) -> None:
    """Nothing that was acknowledged is lost; the job's next life sends what was not."""
    data = disk.folder / "data"
    with serving(data, tmp_path / "log") as server:
        stream = RoutingStream(server.address, run="run", config=CONFIG)
        train(stream, BEFORE)
        assert stream.flush(60)
        with Client(server.address, timeout=60) as client:
            wait(lambda: client.get_run("run").closed_step == BEFORE[-1])
        disk.fill(server.process.pid)
        train_until_stuck(stream, server, BEFORE.stop)
        server.kill()
        stream.close(timeout=0.1)
    with serving(data, tmp_path / "log") as server:
        with Client(server.address, timeout=60) as client:
            assert client.get_metrics("run").windows, "what was stored is there, room or not"
        disk.free(server.process.pid)
        stream = RoutingStream(server.address, run="run", config=CONFIG)
        with Client(server.address, timeout=60) as client:
            done = client.get_run("run").closed_step
        assert done >= BEFORE[-1]
        train(stream, range(done + 1, ALL.stop))
        assert stream.flush(120)
        stream.close()
        with Client(server.address, timeout=60) as client:
            client.finish_run("run")
        assert differences(said(server.address), undisturbed_serving(len(ALL))) == []
        server.stop()
    assert fsck(data) == f"{data} is good\n"
