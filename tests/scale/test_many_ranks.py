"""4,096 ranks over few connections; the server that most of them talk to is killed in the middle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from job import differences, outcome, persistently
from logical_ranks import CONFIG, LogicalRanks
from logical_ranks_main import MESSAGES, STEPS
from redis_deployments import OneRedis
from serving import Serving
from shard_cluster import Shards

from pathwatch.client.tensors import from_tensor

pytestmark = [pytest.mark.scale, pytest.mark.timeout(400)]
RUNS = tuple(f"run-{number}" for number in range(4))
RANKS = 1024
"""Of each run."""
CONNECTIONS = 64
PACE_SECONDS = 3.0
LIMITS = ("--limit", "streams=6000", "--limit", "streams_per_run=2048")


def test_4096_ranks_and_a_killed_shard(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    one = Serving(tmp_path / "one" / "data", tmp_path / "one" / "log", *LIMITS)
    try:
        for run in RUNS:
            persistently(one.address, lambda client, run=run: client.create_run(run, CONFIG))  # type: ignore[misc]
        wanted = play(tmp_path / "one", one.address)
    finally:
        one.kill()
    with OneRedis(tmp_path) as redis, Shards(tmp_path, redis, *LIMITS) as shards:
        shards.create(dict.fromkeys(RUNS, CONFIG))
        found = play(tmp_path, shards.address, shards)
        assert differences(found, wanted) == []


def play(folder: Path, address: str, shards: Shards | None = None) -> dict[str, bytes]:
    """All ranks play; what is said in the end. Of every step each sample is kept once."""
    total = len(RUNS) * RANKS * MESSAGES
    with LogicalRanks(
        folder, address.split(","), RUNS, ranks=RANKS, connections=CONNECTIONS, pace=PACE_SECONDS
    ) as ranks:
        if shards is not None:
            ranks.wait_acked(0.4 * total)
            owner = shards.owner(RUNS[0])
            assert owner is not None
            shards.kill(owner)
        took = ranks.finish()
    assert took["acked"] == total
    print(
        f"{len(RUNS) * RANKS} ranks: {took['streams']} streams, {took['followed']} sent on to another server"
    )
    for run in RUNS:
        persistently(address, lambda client, run=run: client.finish_run(run))  # type: ignore[misc]
        kept = persistently(address, lambda client, run=run: list(client.get_observations(run)))  # type: ignore[misc]
        for round_ in kept:
            ids_N = np.concatenate([from_tensor(group.sample_ids) for group in round_.groups])
            assert sorted(ids_N.tolist()) == list(range(RANKS)), f"{run}: step {round_.step}"
        assert len(kept) == STEPS
    return outcome(address)
