"""Relays and servers that are killed in the middle of it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from job import differences, outcome
from relaying import PATIENCE_SECONDS, STREAM, TRACE, HandRank, RelayProcess, counted, share, together
from server_process import ServerProcess

from pathwatch.client import Client
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig
from pathwatch.v1 import routing_pb2

RANKS = 3
THIRD = len(TRACE.steps_T) * (len(TRACE.groups) + 1) // 3
"""Messages of a rank."""


def what_was_kept(address: str) -> dict[str, bytes]:
    """Windows with metrics and phases, and what they hold: what does not depend on when things came."""
    return {name: said for name, said in outcome(address).items() if "window" in name or "obser" in name}


def payloads(rank: int) -> list[object]:
    every: list[object] = []
    for index in range(len(TRACE.steps_T)):
        every += [*share(index, rank, RANKS), routing_pb2.Watermark(step=index)]
    return every


def send_all(rank: HandRank, address: str) -> None:
    rank.send(address, payloads(rank.rank))


@pytest.mark.slow
def test_whatever_is_killed_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    with BackgroundServer(ServerConfig(data=tmp_path / "direct")) as server:
        with Client(server.grpc_address) as client:
            client.create_run("traced", STREAM)
            ranks = [HandRank("traced", rank, RANKS) for rank in range(RANKS)]
            together(lambda rank: send_all(ranks[rank], server.grpc_address), RANKS)
            client.finish_run("traced")
        direct = what_was_kept(server.grpc_address)

    servers = ServerProcess(tmp_path / "relayed")
    ranks = [HandRank("traced", rank, RANKS) for rank in range(RANKS)]
    stages = [threading.Event(), threading.Event()]

    def wait_before(sequence: int) -> None:
        for number, stage in enumerate(stages, start=1):
            if sequence > number * THIRD:
                assert stage.wait(PATIENCE_SECONDS)

    try:
        with RelayProcess(servers.address) as relay:
            with Client(relay.address, timeout=60) as client:
                client.create_run("traced", STREAM)

            def kill() -> None:
                """In the middle: some is acknowledged, more is on its way."""
                for number, stage in enumerate(stages, start=1):
                    wait_acked(ranks, number * THIRD - THIRD // 2)
                    if number == 1:
                        relay.kill()
                        relay.start()
                    else:
                        servers.kill_and_restart()
                    stage.set()

            killer = threading.Thread(target=kill)
            killer.start()
            together(lambda rank: ranks[rank].insist(relay.address, payloads(rank), wait_before), RANKS)
            killer.join()
            left_out = counted(relay.http, "pathwatch_relay_observations_total", result="cut")
            with Client(relay.address, timeout=60) as client:
                client.finish_run("traced")
            through = what_was_kept(relay.address)
    finally:
        servers.kill()
    assert left_out > 0
    assert differences(through, direct) == []


def wait_acked(ranks: list[HandRank], sequence: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while min(rank.acked for rank in ranks) < sequence:
        assert time.monotonic() < deadline, [rank.acked for rank in ranks]
        time.sleep(0.002)
