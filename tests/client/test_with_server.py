"""The client against the true server: what the fake one of the other tests cannot show."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import pytest

from pathwatch.client import Client, RoutingStream
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig
from pathwatch.v1 import run_pb2


def test_a_job_that_creates_its_run_connects_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4))
    with BackgroundServer(ServerConfig(data=tmp_path)) as server:
        stream = RoutingStream(server.grpc_address, run="new", config=config, watch=True)
        stream.observe(step=0, group="math", sample_ids=[1, 2], weights=np.full((2, 2, 4), 0.25, np.float32))
        stream.watermark(0)
        assert stream.flush(60)
        deadline = time.monotonic() + 60
        while stream.signal is None or stream.signal.step < 0:
            assert time.monotonic() < deadline, "no signal came"
            time.sleep(0.01)
        stream.close()
        with Client(server.grpc_address) as client:
            assert client.get_run("new").groups == ["math"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
