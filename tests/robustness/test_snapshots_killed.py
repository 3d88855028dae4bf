"""Killed in the middle of snapshots, again and again, under load: what was acknowledged is there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from job import differences
from serving import CONFIG, Serving, fsck, said, train

from pathwatch.client import Client, RoutingStream
from pathwatch.server import failpoints
from pathwatch.server.store.sqlite_snapshots import Snapshots

KILLS = 5
OFTEN = ("--snapshot-minutes", "0.002")


class Training(threading.Thread):
    """For as long as the kills take, so that there is always something new to take a snapshot of."""

    def __init__(self, stream: RoutingStream) -> None:
        super().__init__()
        self._stream = stream
        self.stop = threading.Event()
        self.steps = 0

    def run(self) -> None:
        while not self.stop.wait(0.4):
            train(self._stream, range(self.steps, self.steps + 1))
            self.steps += 1


@pytest.mark.robustness
def test_killed_in_the_middle_of_snapshots(
    tmp_path: Path, undisturbed_serving: Callable[[int], Mapping[str, bytes]]
) -> None:
    data, log = tmp_path / "data", tmp_path / "log"
    server = Serving(data, log)
    stream = RoutingStream(server.address, run="run", config=CONFIG)
    training = Training(stream)
    training.start()
    try:
        server.kill()
        for kill in range(KILLS):
            # The first of some lives, the second or third of others.
            armed = {failpoints.VARIABLE: f"snapshot.middle=kill@{1 + kill % 3}"}
            server = Serving(data, log, *OFTEN, listen=server.address, environment=armed)
            assert server.process.wait(60) == -9
            server.kill()
            assert Snapshots(data).leftovers(), "it was killed in the middle of one"
        server = Serving(data, log, *OFTEN, listen=server.address)
        training.stop.set()
        training.join()
        assert stream.flush(120)
        assert (stream.stats.dropped_steps, stream.stats.rejected) == (0, 0)
        stream.close()
        with Client(server.address, timeout=60) as client:
            client.finish_run("run")
        assert differences(said(server.address), undisturbed_serving(training.steps)) == []
        server.stop()
    finally:
        training.stop.set()
        training.join()
        server.kill()
    assert Snapshots(data).newest_good() is not None
    assert fsck(data) == f"{data} is good\n"
