"""What a client had to drop is told to the server, by the true client to a true server."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from serving import Serving, serving, wait

from pathwatch.client import RoutingStream, Spool
from pathwatch.v1 import run_pb2

CONFIG = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=600), grace_seconds=3600)
STEP_BYTES = 30_000


def observe(stream: RoutingStream, steps: range) -> None:
    weights = np.full((5, 2, 600), 1 / 600, np.float32)
    for step in steps:
        stream.observe(step=step, group="math", sample_ids=np.arange(5), weights=weights)
        stream.watermark(step)


def is_told(server: Serving, dropped: int) -> bool:
    return server.scrape("pathwatch_ingest_observations_total", run="job", result="dropped") == dropped


@pytest.fixture
def away(tmp_path: Path) -> Iterator[str]:
    """Where a server was, and will be again."""
    with serving(tmp_path / "data", tmp_path / "log") as server:
        server.stop()
        yield server.address


@pytest.mark.robustness
@pytest.mark.parametrize("spools", [False, True])
def test_the_server_learns_what_was_dropped_while_it_was_away(
    away: str, spools: bool, tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=1 << 20) if spools else None
    stream = RoutingStream(away, run="job", config=CONFIG, buffer_bytes=6 * STEP_BYTES, spool=spool)
    servers: list[Serving] = []

    def start() -> Serving:
        servers.append(Serving(tmp_path / "data", tmp_path / "log", listen=away))
        return servers[-1]

    try:
        if spools:
            step = 0
            while stream.stats.dropped_steps < 20:  # as fast as the disk takes them, and memory cannot hold
                observe(stream, range(step, step + 1))
                step += 1
        else:
            observe(stream, range(30))
            step = 30
            assert stream.stats.dropped_steps >= 20
        server = start()
        assert stream.flush(60)
        for _ in range(2):  # said again, counted once
            observe(stream, range(step, step + 1))
            step += 1
            assert stream.flush(60)
            told = stream.stats.dropped_observations
            wait(partial(is_told, server, told))
        came = server.scrape("pathwatch_ingest_observations_total", run="job", result="accepted")
        assert came is not None
        assert came > 0
        assert told + came == 5 * step

        server.kill()
        observe(stream, range(step, step + 60))
        server = start()
        assert stream.flush(60)
        observe(stream, range(step + 60, step + 61))
        assert stream.flush(60)
        news = stream.stats.dropped_observations - told
        assert news > 0
        wait(partial(is_told, server, news))  # what it had told before is no news
    finally:
        stream.close(1)
        for server in servers:
            server.kill()
