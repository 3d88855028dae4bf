"""Servers that share a Redis are killed, frozen and ended: the runs end as if one server had lived."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from job import persistently
from redis_deployments import OneRedis
from serving import wait
from shard_cluster import LEASE_SECONDS, Shards
from trace_ranks import TraceRanks, Undisturbed

from pathwatch.v1 import run_pb2

pytestmark = [pytest.mark.scale, pytest.mark.timeout(300)]
Configs = Mapping[str, run_pb2.RunConfig]
End = Callable[[str], None]


def test_another_takes_over_when_the_owner_is_killed(
    ranks: TraceRanks, configs: Configs, undisturbed: Undisturbed, the_end: End, tmp_path: Path
) -> None:
    with OneRedis(tmp_path) as redis, Shards(tmp_path, redis) as shards:
        shards.create(configs)
        ranks.begin([shards.address], hold={"text": 0.5, "drift": 0.8})
        for run, share in ("text", 0.3), ("drift", 0.6):
            ranks.wait_acked(share * undisturbed.acked[run], run)
            former, epoch, lasts = shards.owner(run), shards.epoch(run), shards.until(run)
            assert former is not None
            killed = shards.kill(former)
            acked = ranks.acked(run)
            ranks.let_on(run)
            taker = shards.wait_taken(run, former)
            assert shards.epoch(run) == epoch + 1
            assert shards.until(run) >= lasts + 1000 * LEASE_SECONDS, "taken before the lease had run out"
            ranks.wait_acked(acked + 1, run)
            took = time.monotonic() - killed
            print(
                f"run {run}: killed {former.address}; acknowledged by {taker.address} after {took:.1f} s,"
                f" with leases of {LEASE_SECONDS:g} s"
            )
            shards.start(former)
        the_end(shards.address)
        # It has none of what it had: it says who has.
        assert persistently(former.address, lambda client: client.get_run("drift")).name == "drift"
        assert shards.owner("drift") is taker


def test_a_shard_that_was_frozen_for_longer_than_its_lease_lets_its_runs_be(
    ranks: TraceRanks, configs: Configs, undisturbed: Undisturbed, the_end: End, tmp_path: Path
) -> None:
    with OneRedis(tmp_path) as redis, Shards(tmp_path, redis) as shards:
        shards.create(configs)
        ranks.begin([shards.address], hold={"text": 0.5})
        ranks.wait_acked(0.3 * undisturbed.acked["text"], "text")
        former, acked = shards.owner("text"), ranks.acked("text")
        assert former is not None
        others = ",".join(shard.address for shard in shards.shards if shard is not former)
        shards.freeze(former)
        try:
            # Somebody asks while the ranks still wait for the one that they know.
            persistently(others, lambda client: client.get_run("text"))
            taker = shards.wait_taken("text", former)
        finally:
            shards.thaw(former)
            ranks.let_on("text")
        ranks.wait_acked(acked + 1, "text")
        the_end(shards.address)
        assert shards.owner("text") is taker

        def losses() -> float | None:
            return former.process.scrape("pathwatch_lease_losses_total")

        wait(losses)
        print(f"frozen {former.address} noticed {losses():g} lost runs; {taker.address} has run text")


def test_a_rolling_restart_goes_unnoticed(
    ranks: TraceRanks, configs: Configs, undisturbed: Undisturbed, the_end: End, tmp_path: Path
) -> None:
    with OneRedis(tmp_path) as redis, Shards(tmp_path, redis) as shards:
        shards.create(configs)
        ranks.begin([shards.address])
        total = sum(undisturbed.acked.values())
        for n, shard in enumerate(shards.shards):
            ranks.wait_acked((0.2 + 0.2 * n) * total)
            had = [run for run in configs if shards.owner(run) is shard]
            asked = time.monotonic()
            shards.end(shard)
            # Let go of, not run out: until it is taken a lease says whose it was.
            assert [run for run in configs if shards.owner(run) is shard] == []
            for run in had:
                # Of a run that is all sent already nobody else would ask.
                persistently(shards.address, lambda client, run=run: client.get_run(run))  # type: ignore[misc]
                shards.wait_taken(run, shard)
            print(f"ended {shard.address}: others had its {had} after {time.monotonic() - asked:.1f} s")
            shards.start(shard)
        the_end(shards.address)
