"""kill -9 two hundred times: what was acked is there, and the runs end as if nothing had happened."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from job import Job, Plan, differences, outcome
from killer import Killer
from rank_process import RankProcesses
from server_process import ServerProcess
from serving import fsck

KILLS = 50
SEED = int(os.environ.get("PATHWATCH_SEED", "0"))
MESSAGES = 1600
"""Acknowledged to all ranks by the time of the last kill; the job has about 1700."""


@pytest.mark.robustness
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(SEED, SEED + 4))
def test_killed_and_undisturbed_servers_say_the_same(
    seed: int, undisturbed: Mapping[str, bytes], tmp_path: Path
) -> None:
    print(f"repeat with PATHWATCH_SEED={seed}")  # shown where the test fails
    server = ServerProcess(tmp_path / "data")
    try:
        with (
            RankProcesses(tmp_path) as ranks,
            Killer(server, ranks, kills=KILLS, messages=MESSAGES, seed=seed) as killer,
        ):
            Job(server.address, ranks, Plan()).run()
            killer.join()
        assert killer.kills == KILLS
        assert not differences(outcome(server.address), dict(undisturbed))
    finally:
        server.kill()
    assert fsck(tmp_path / "data") == f"{tmp_path / 'data'} is good\n"
