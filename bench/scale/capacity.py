"""How many runs and ranks a shard and a Redis have room for, from what was measured of a few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.scale.costs import RunCosts
from bench.scale.rank_costs import RankCosts

BUSY = 0.5
"""Of a core's time, at most: the rest is for what comes at once, and for runs of a shard that has died."""
KEPT_ROUNDS = 1000
"""Of a run, whose history is in Redis."""
ROUNDS_HELD = 2
"""Of a run, in the shard's memory and in Redis: one that is open, one that is being judged."""
GIGABYTE = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A training job."""

    name: str
    ranks: int
    round_seconds: float
    """From one round of windows to the next."""
    watermark_seconds: float = 1.0
    """From one watermark of a rank to the next: a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What one run of a job takes."""

    cores: float
    """Of a shard, on average."""
    redis_cores: float
    memory_bytes: float
    """Of a shard."""
    redis_bytes: float

    @property
    def runs_per_core(self) -> float:
        """With the core busy half of the time."""
        return BUSY / self.cores

    @property
    def runs_per_redis_core(self) -> float:
        """The same of Redis, which has one."""
        return BUSY / self.redis_cores

    @property
    def runs_per_gigabyte(self) -> float:
        """Of a shard's memory, beside what it takes without runs."""
        return GIGABYTE / self.memory_bytes

    @property
    def runs_per_redis_gigabyte(self) -> float:
        """With the history of a thousand rounds."""
        return GIGABYTE / self.redis_bytes


def needs(job: Job, run: RunCosts, rank: RankCosts) -> Needs:
    """Of a run whose rounds are as large as those that `run` was measured with."""
    rounds, watermarks = 1 / job.round_seconds, job.ranks / job.watermark_seconds
    return Needs(
        cores=rounds * (run.take_seconds + run.close_seconds) + watermarks * rank.watermark_seconds,
        redis_cores=rounds * run.redis_seconds + watermarks * rank.redis_watermark_seconds,
        memory_bytes=run.idle_bytes + ROUNDS_HELD * run.open_bytes + job.ranks * rank.stream_bytes,
        redis_bytes=run.redis_idle_bytes
        + ROUNDS_HELD * run.redis_open_bytes
        + KEPT_ROUNDS * run.redis_judged_bytes
        + job.ranks * rank.redis_bytes,
    )


def ranks_per_core(rank: RankCosts) -> float:
    """Ranks with a watermark a second that keep a core of a shard half busy."""
    return BUSY / rank.watermark_seconds


def ranks_per_gigabyte(rank: RankCosts) -> float:
    """Ranks whose streams take a gigabyte of a shard's memory."""
    return GIGABYTE / rank.stream_bytes


JOBS: Sequence[Job] = (
    Job(name="a probe set, read every 5 minutes", ranks=64, round_seconds=300),
    Job(name="a window a minute", ranks=512, round_seconds=60),
    Job(name="a window a minute, large job", ranks=4096, round_seconds=60, watermark_seconds=5),
)
