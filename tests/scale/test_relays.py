"""Relays between ranks and shards: each of them is killed, and a shard behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis_deployments import OneRedis
from relaying import RelayProcess
from shard_cluster import Shards
from trace_ranks import TraceRanks, Undisturbed

from pathwatch.v1 import run_pb2

pytestmark = [pytest.mark.scale, pytest.mark.timeout(300)]


def test_relays_and_a_shard_are_killed(
    ranks: TraceRanks,
    configs: Mapping[str, run_pb2.RunConfig],
    undisturbed: Undisturbed,
    the_end: Callable[[str], None],
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        redis = stack.enter_context(OneRedis(tmp_path))
        shards = stack.enter_context(Shards(tmp_path, redis))
        relays = [stack.enter_context(RelayProcess(shards.address)) for _ in range(2)]
        shards.create(configs)
        ranks.begin([relay.address for relay in relays], hold={"text": 0.6})
        ranks.wait_acked(0.2 * undisturbed.acked["text"], "text")
        relays[0].kill()
        relays[0].start()
        ranks.wait_acked(0.5 * undisturbed.acked["text"], "text")
        owner = shards.owner("text")
        assert owner is not None
        shards.kill(owner)
        ranks.let_on("text")
        taker = shards.wait_taken("text", owner)
        print(f"killed a relay, and behind it {owner.address}; {taker.address} took run text")
        ranks.wait_acked(0.7 * undisturbed.acked["text"], "text")
        relays[1].kill()
        relays[1].start()
        # What is asked through a relay is what the shards say.
        the_end(relays[0].address)
