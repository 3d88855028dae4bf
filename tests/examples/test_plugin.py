"""examples/plugin, installed as a package of its own, works in a real server by its entry points alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pathwatch.client import Client, RoutingStream
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig
from pathwatch.v1 import run_pb2, signal_pb2

TOPOLOGY = run_pb2.Topology(layers=2, experts=4)
WEIGHTS_NLK = np.tile(np.float32([0.9, 0.1, 0.0, 0.0]), (5, 2, 1))


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with BackgroundServer(ServerConfig(data=tmp_path)) as server:
        yield server.grpc_address


def test_metric_detector_and_policy_of_another_package_decide(address: str) -> None:
    config = run_pb2.RunConfig(
        topology=TOPOLOGY,
        metrics=["dead-experts"],
        detector="loss-threshold",
        policy="first-group",
        policy_options={"group": "math"},
    )
    with Client(address) as client:
        client.create_run("plugged", config)
        stream = RoutingStream(address, run="plugged")
        for step, loss in ((10, 2.0), (20, 0.1)):
            losses_N = np.full(5, loss, dtype=np.float32)
            stream.observe(
                step=step, group="math", sample_ids=np.arange(5), weights=WEIGHTS_NLK, losses=losses_N
            )
            stream.watermark(step)
        deadline = time.monotonic() + 60
        while client.get_run("plugged").closed_step < 20:
            assert time.monotonic() < deadline, "the second window was not judged"
            time.sleep(0.01)
        stream.close()
        history = client.get_metrics("plugged")
        signal = client.get_signal("plugged")
    assert [window.metrics["dead_experts"] for window in history.windows] == [2.0, 2.0]
    assert [window.phase for window in history.windows] == [
        signal_pb2.PHASE_LEARNING,
        signal_pb2.PHASE_MEMORIZED,
    ]
    assert signal.action == signal_pb2.ACTION_STOP
    assert signal.stop_at_step > 20
    assert signal.reason == "math is memorized since step 20"


def test_validation_names_unknown_plugins_and_bad_options(address: str) -> None:
    with Client(address) as client:
        no_option = run_pb2.RunConfig(topology=TOPOLOGY, policy="first-group")
        (violation,) = client.validate_run("plugged", no_option)
        assert "group" in violation.message
        misspelt = run_pb2.RunConfig(topology=TOPOLOGY, detector="loss-treshold")
        (violation,) = client.validate_run("plugged", misspelt)
        assert violation.field == "config.detector"
        assert "loss-threshold" in violation.message
