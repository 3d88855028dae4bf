"""What the tests of kills share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import pytest
from job import Job, Plan, outcome
from rank_process import RankProcesses
from server_process import ServerProcess
from serving import CONFIG, said, serving, train

from pathwatch.client import Client, RoutingStream


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """What the service says of a job whose every message came in order to a server that lived."""
    folder = tmp_path_factory.mktemp("undisturbed")
    server = ServerProcess(folder / "data")
    try:
        with RankProcesses(folder) as ranks:
            Job(server.address, ranks, Plan(), in_order=True).run()
        return outcome(server.address)
    finally:
        server.kill()


@pytest.fixture(scope="session")
def undisturbed_serving(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Mapping[str, bytes]]:
    """What the service says of so many steps of the run of `serving` when nothing goes wrong."""

    @cache
    def run(steps: int) -> Mapping[str, bytes]:
        folder = tmp_path_factory.mktemp("undisturbed-serving")
        with serving(folder / "data", folder / "log") as server:
            stream = RoutingStream(server.address, run="run", config=CONFIG)
            train(stream, range(steps))
            assert stream.flush(120)
            stream.close()
            with Client(server.address, timeout=60) as client:
                client.finish_run("run")
            return said(server.address)

    return run
