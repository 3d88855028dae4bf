"""Writes that reach Redis only when others have their runs: nothing of them is applied."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from chaos_proxy import ChaosProxy
from redis_deployments import OneRedis
from serving import wait
from shard_cluster import SHARDS, Shards
from trace_ranks import TraceRanks, Undisturbed

from pathwatch.server.store.redis_writes import SCRIPT
from pathwatch.v1 import run_pb2

pytestmark = [pytest.mark.scale, pytest.mark.timeout(300)]


def test_a_write_under_way_is_refused_when_another_has_the_run(
    ranks: TraceRanks,
    configs: Mapping[str, run_pb2.RunConfig],
    undisturbed: Undisturbed,
    the_end: Callable[[str], None],
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        redis = stack.enter_context(OneRedis(tmp_path))
        behind = [stack.enter_context(ChaosProxy(f"127.0.0.1:{redis.redis.port}")) for _ in range(SHARDS)]
        shards = stack.enter_context(
            Shards(
                tmp_path,
                redis,
                "--redis-timeout-seconds",
                "60",  # the write is not given up before it arrives
                stores=[f"redis://{proxy.address}" for proxy in behind],
            )
        )
        shards.create(configs)
        ranks.begin([shards.address], hold={"text": 0.5})
        ranks.wait_acked(0.3 * undisturbed.acked["text"], "text")
        former = shards.owner("text")
        assert former is not None
        proxy = behind[shards.shards.index(former)]
        proxy.hold_back()
        ranks.let_on("text")
        # A renewal is shorter than the script of a write.
        proxy.wait_for(lambda proxy: proxy.bytes_taken - proxy.bytes_up > len(SCRIPT))
        epochs = {run: shards.epoch(run) for run in configs if shards.owner(run) is former}
        for run in epochs:
            shards.have_taken(run, former)
        with redis.client() as client, client.monitor() as watched:
            proxy.resume()
            wait(lambda: all(f"run '{run}' is lost to" in former.log for run in epochs))
            client.echo("all has come")
            said = list(until(watched.listen(), "ECHO all has come"))
        late = [mark for run, epoch in epochs.items() for mark in written(said, run, epoch)]
        assert late
        applied = [mark for mark in late for command in said if re.search(rf"^SET \S+ {mark}\b", command)]
        assert applied == []
        print(f"{len(late)} writes of {former.address} came late; it has lost {', '.join(epochs)}")
        the_end(shards.address)


def until(listened: Iterator[Mapping[str, str]], last: str) -> Iterator[str]:
    """Commands that Redis was given, those of its scripts too."""
    for command in listened:
        if command["command"] == last:
            return
        yield command["command"]


def written(said: list[str], run: str, epoch: int) -> list[str]:
    """Marks of the writes of a run that came with a lease of this number."""
    lease = re.escape(f"pathwatch:{{{run}}}:lease")
    call = re.compile(rf" {lease} {epoch}-\w+ \S+ \d+ (\S+) \d")
    return [found[1] for command in said if (found := call.search(command))]
