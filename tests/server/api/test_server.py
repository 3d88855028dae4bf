"""Health, reflection, and how a server takes its leave."""

from __future__ import annotations

import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.v1 import run_pb2, run_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("name", ["", "pathwatch.v1.RoutingService", "pathwatch.v1.SignalService"])
def test_health(service: Any, name: str) -> None:
    stub = health_pb2_grpc.HealthStub(service.channel)
    assert stub.Check(health_pb2.HealthCheckRequest(service=name)).status == SERVING


def test_reflection_lists_the_services(service: Any) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(service.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (response,) = stub.ServerReflectionInfo(iter([request]))
    names = {listed.name for listed in response.list_services_response.service}
    assert {f"pathwatch.v1.{kind}Service" for kind in ("Routing", "Run", "Signal")} <= names


@pytest.mark.slow
def test_a_drain_says_not_serving_and_acks_what_it_has_read(
    tmp_path: Path, make_stream: Any, make_batch: Any
) -> None:
    config = ServerConfig(data=tmp_path / "data", drain_seconds=60)
    with ExitStack() as leaving:
        server = leaving.enter_context(BackgroundServer(config))
        with grpc.insecure_channel(server.grpc_address) as channel:
            health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
            assert next(health).status == SERVING
            topology = run_pb2.Topology(layers=2, experts=4)
            run_pb2_grpc.RunServiceStub(channel).CreateRun(
                run_pb2.CreateRunRequest(name="run", config=run_pb2.RunConfig(topology=topology))
            )
            stream = make_stream(channel)
            stream.hello()
            for step in range(20):
                last = stream.send(make_batch(step))
            stream.await_ack(1)
            draining = threading.Thread(target=leaving.pop_all().close)
            draining.start()
            assert next(health).status == NOT_SERVING
            health.cancel()  # which would go on for as long as the server has for its leave
            error = stream.error()
            draining.join(120)
            assert not draining.is_alive()
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "shutting down" in error.details()
    acked = max(response.acked_sequence for response in stream.responses)
    assert 1 <= acked <= last
    with closing(SqliteStore(tmp_path / "data")) as store:
        assert len(list(store.batches("run"))) == acked
