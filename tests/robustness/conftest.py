"""What the tests of kills share."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from job import Job, Plan, outcome
from rank_process import RankProcesses
from server_process import ServerProcess


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
