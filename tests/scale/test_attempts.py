"""A job that goes back, loses ranks and deletes a run, while two of three shards are killed."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from job import Job, Plan, differences, outcome
from rank_process import RankProcesses
from redis_deployments import OneRedis
from serving import Serving
from shard_cluster import Shards

pytestmark = [pytest.mark.scale, pytest.mark.timeout(300)]
PLAN = Plan(late=1, stop=5, crash=7, rewind_probe=5, rewind_stream=3, leave=14, last=16)
KILLED_AT = (0.1, 0.4)
"""Shares of the messages of the job that are acknowledged by then."""
HELD_AFTER = 0.2
"""So much more may be acknowledged before the kill, and what is under way (a seventh of the job at most)."""


def test_a_job_of_two_attempts_while_shards_are_killed(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with RankProcesses(tmp_path / "one") as ranks:
        one = Serving(tmp_path / "one" / "data", tmp_path / "one" / "log")
        try:
            Job(one.address, ranks, PLAN, in_order=True).run()
            wanted, messages = outcome(one.address), ranks.acked
        finally:
            one.kill()
    with (
        OneRedis(tmp_path) as redis,
        Shards(tmp_path, redis) as shards,
        RankProcesses(tmp_path) as ranks,
        ThreadPoolExecutor(1) as pool,
    ):
        first, *later = ((share + HELD_AFTER) * messages for share in KILLED_AT)
        ranks.hold(first)
        playing = pool.submit(Job(shards.address, ranks, PLAN).run)
        try:
            for share, hold in zip(KILLED_AT, [*later, None], strict=True):
                while ranks.acked < share * messages and not playing.done():
                    time.sleep(0.005)
                owner = shards.owner("probe")
                assert owner is not None
                assert not playing.done(), playing.exception()
                shards.kill(owner)
                print(f"killed {owner.address} after {ranks.acked} of {messages} messages")
                # Those that wait may have nothing to ask the next owner for.
                ranks.hold(hold)
                shards.wait_taken("probe", owner)
            playing.result()
        except BaseException:
            ranks.kill()  # else the job would be waited for
            raise
        found = outcome(shards.address)
    assert differences(found, wanted) == []
    print(f"equal to the bit: {len(found)} answers")
