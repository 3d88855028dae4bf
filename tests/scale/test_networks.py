"""What networks do, between ranks and servers and between servers and Redis."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from chaos_proxy import ChaosProxy
from ports import lasting_port
from redis_deployments import OneRedis
from serving import wait
from shard_cluster import SHARDS, Shards
from trace_ranks import TraceRanks, Undisturbed

from pathwatch.v1 import run_pb2

pytestmark = [pytest.mark.scale, pytest.mark.timeout(300)]
FAULTS = 6
"""At least: the ranks send no more than some 40 % before."""
SEED = int(os.environ.get("PATHWATCH_SEED", "0"))


def test_cut_and_stalled_networks(
    ranks: TraceRanks,
    configs: Mapping[str, run_pb2.RunConfig],
    undisturbed: Undisturbed,
    the_end: Callable[[str], None],
    tmp_path: Path,
) -> None:
    print(f"repeat with PATHWATCH_SEED={SEED}")
    chance = random.Random(SEED)  # noqa: S311  # which fault when, reproducibly
    with ExitStack() as stack:
        redis = stack.enter_context(OneRedis(tmp_path))
        listen = [f"127.0.0.1:{lasting_port()}" for _ in range(SHARDS)]
        before = [stack.enter_context(ChaosProxy(address)) for address in listen]
        behind = [stack.enter_context(ChaosProxy(f"127.0.0.1:{redis.redis.port}")) for _ in range(SHARDS)]
        shards = stack.enter_context(
            Shards(
                tmp_path,
                redis,
                "--redis-timeout-seconds",
                "2",
                listen=listen,
                # Others name a shard by the address at which its proxy is.
                addresses=[proxy.address for proxy in before],
                stores=[f"redis://{proxy.address}" for proxy in behind],
            )
        )
        shards.create(configs)
        ranks.begin([shards.address], hold={"text": 0.9})
        done: list[str] = []
        total = sum(undisturbed.acked.values())
        while ranks.acked() < 0.8 * total and len(done) < 20:
            if len(done) == 4:
                done.append(cut_off_from_redis(shards, behind))
            else:
                done.append(disturb(chance, before, behind))
            if len(done) == FAULTS:
                ranks.let_on("text")
            # So that all that is disturbed has done something between, as far as the ranks may go.
            ranks.wait_acked(min(ranks.acked() + 0.03 * total, (0.4 if len(done) < FAULTS else 0.8) * total))
        print(f"{len(done)} faults: {', '.join(done)}")
        assert len(done) >= FAULTS
        the_end(shards.address)

        def losses() -> float:
            return sum(shard.process.scrape("pathwatch_lease_losses_total") or 0 for shard in shards.shards)

        wait(losses)
        print(f"runs lost to another server: {losses():g}")


def cut_off_from_redis(shards: Shards, behind: list[ChaosProxy]) -> str:
    """The owner of a run hears nothing of Redis until another has the run; it is told when it is over."""
    owner = shards.owner("text")
    assert owner is not None
    proxy = behind[shards.shards.index(owner)]
    proxy.stall()
    try:
        shards.have_taken("text", owner)
    finally:
        proxy.resume()
    return "stall of the owner's Redis past its lease"


def disturb(chance: random.Random, before: list[ChaosProxy], behind: list[ChaosProxy]) -> str:
    """One fault, over when this returns, and its name."""
    to_redis = chance.random() < 0.5
    proxy = chance.choice(behind if to_redis else before)
    kind = chance.choice(["cut", "cut within", "stall", "vanish", "refuse"])
    match kind:
        case "cut":
            proxy.cut()
        case "cut within":
            proxy.cut_after(chance.randrange(4000))
        case "vanish":
            proxy.vanish()
        case "refuse":
            proxy.refuse()
            proxy.cut()
            time.sleep(0.3)
            proxy.accept()
        case "stall":
            proxy.stall()
            time.sleep(0.5)
            if chance.random() < 0.5:
                proxy.cut()
            proxy.resume()
    return f"{kind} {'to Redis' if to_redis else 'to a shard'}"
