"""What the true server refuses, and what the client makes of it."""

import logging
import threading

import numpy as np
import pytest

from pathwatch.client import RoutingStream, attempts
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import Limits, ServerConfig
from pathwatch.v1 import run_pb2

CONFIG = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4))


@pytest.fixture
def asked_to_wait(monkeypatch):
    """Seconds that servers asked to wait; they are not waited for."""
    asked = []
    true = attempts.retry_delay

    def read(error):
        asked.append(true(error))
        return 0.0

    monkeypatch.setattr(attempts, "retry_delay", read)
    return asked


def send(stream, step, n=2):
    stream.observe(
        step=step, group="math", sample_ids=np.arange(n), weights=np.full((n, 2, 4), 0.25, np.float32)
    )


@pytest.mark.slow
def test_a_limit_that_passes_costs_nothing_but_time(tmp_path, eventually, asked_to_wait):
    """The server says when to come again; what it did not take is sent then."""
    limits = Limits(streams=1)
    with BackgroundServer(ServerConfig(data=tmp_path, limits=limits)) as server:
        first = RoutingStream(server.grpc_address, run="first", config=CONFIG)
        send(first, 0)
        assert first.flush(60)
        second = RoutingStream(server.grpc_address, run="second", config=CONFIG)
        send(second, 0)
        eventually(lambda: sum(seconds > 0 for seconds in asked_to_wait) >= 2)
        assert second.stats.buffered_bytes > 0
        first.close()
        assert second.flush(60)
        assert second.stats.rejected == 0
        second.close()


def test_a_message_that_no_waiting_makes_acceptable_is_given_up_and_counted(tmp_path, caplog):
    """RESOURCE_EXHAUSTED for one message: to send it again would get the same answer."""
    limits = Limits(samples_per_message=4)
    with BackgroundServer(ServerConfig(data=tmp_path, limits=limits)) as server:
        stream = RoutingStream(server.grpc_address, run="run", config=CONFIG)
        send(stream, 0, n=5)
        send(stream, 0, n=4)
        stream.watermark(0)
        assert stream.flush(60)
        assert (stream.stats.rejected, stream.stats.acked) == (1, 3)
        assert stream.stats.reconnects == 0
        stream.close()
    (text,) = [r.getMessage() for r in caplog.records if r.name == "pathwatch.client"]
    assert "4" in text
    assert "batch" in text


class Broken(logging.Handler):
    """A handler that the job would rather not have."""

    def __init__(self):
        super().__init__()
        self.records = 0

    def emit(self, record):
        self.records += 1
        raise RuntimeError("this handler is broken")


def test_a_log_handler_that_raises_reaches_nobody(sidecar, streams, observe, eventually, monkeypatch):
    surfaced = []
    monkeypatch.setattr(threading, "excepthook", surfaced.append)
    broken = Broken()
    logger = logging.getLogger("pathwatch")
    logger.addHandler(broken)
    try:
        sidecar.stop()
        stream = streams(sidecar.address, buffer_bytes=20_000)
        stream.observe(step=0, group="", sample_ids=[1], weights=None)
        for step in range(100):
            observe(stream, step)
        eventually(lambda: broken.records >= 3)  # refused, full, away
        sidecar.start()
        assert stream.flush(60)
        stream.close(60)
    finally:
        logger.removeHandler(broken)
    assert surfaced == []
    assert stream.stats.rejected == 1
