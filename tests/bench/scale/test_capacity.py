"""A capacity plan says what arithmetic by hand says."""

from __future__ import annotations

import pytest

from bench.scale.capacity import KEPT_ROUNDS, Job, needs, ranks_per_core, ranks_per_gigabyte
from bench.scale.costs import RunCosts
from bench.scale.rank_costs import RankCosts

RUN = RunCosts(
    model="made-up",
    layers=2,
    experts=4,
    runs=10,
    round_bytes=1_000_000,
    bare_bytes=80e6,
    idle_bytes=1e6,
    open_bytes=4e6,
    judged_bytes=2e6,
    take_seconds=0.5,
    close_seconds=1.5,
    redis_idle_bytes=1000,
    redis_open_bytes=500_000,
    redis_judged_bytes=9000,
    redis_seconds=0.2,
)
RANK = RankCosts(
    ranks=10,
    connections=10,
    stream_bytes=10_000,
    watermark_seconds=0.001,
    redis_bytes=100,
    redis_watermark_seconds=0.0001,
    every_seconds=1.0,
    pace=1.0,
)


def test_a_run_needs_what_its_rounds_and_its_ranks_need() -> None:
    # A round each 20 s: 0.1 cores. 100 ranks with a watermark each 10 s: 10 a second, 0.01 cores.
    found = needs(Job(name="job", ranks=100, round_seconds=20, watermark_seconds=10), RUN, RANK)
    assert found.cores == pytest.approx(0.11)
    assert found.redis_cores == pytest.approx(0.01 + 0.001)
    assert found.memory_bytes == pytest.approx(1e6 + 8e6 + 1e6)
    assert found.redis_bytes == pytest.approx(1000 + 1e6 + KEPT_ROUNDS * 9000 + 10_000)
    assert found.runs_per_gigabyte == pytest.approx(100)
    # Half of a core is kept free.
    assert found.runs_per_core == pytest.approx(0.5 / 0.11)


def test_ranks_of_a_shard() -> None:
    assert ranks_per_core(RANK) == pytest.approx(500)
    assert ranks_per_gigabyte(RANK) == pytest.approx(100_000)
