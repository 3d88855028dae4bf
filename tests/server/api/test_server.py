"""Health, reflection, and how a server takes its leave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from pathwatch.server.access.counts import AccessCounts
from pathwatch.server.api.call_counts import CallCounts
from pathwatch.server.api.server import GrpcServer
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig
from pathwatch.server.engine.stats import Stats
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.v1 import run_pb2, run_pb2_grpc, signal_pb2, signal_pb2_grpc

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


class _Services(signal_pb2_grpc.SignalServiceServicer):
    def __init__(self) -> None:
        self.left = False

    def add_to(self, server: grpc.aio.Server) -> None:
        signal_pb2_grpc.add_SignalServiceServicer_to_server(self, server)

    def drain(self) -> None: ...

    def close(self) -> None: ...


class _SlowToLeave(_Services):
    """Has something to do yet when a call's status is sent already."""

    async def GetSignal(self, request: signal_pb2.GetSignalRequest, context: Any) -> None:
        try:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the end")
        finally:
            await asyncio.sleep(0.5)
            self.left = True


class _Wordy(_Services):
    """Has always more to say than its caller listens to."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()

    async def WatchSignals(
        self, request: signal_pb2.WatchSignalsRequest, context: Any
    ) -> AsyncIterator[signal_pb2.WatchSignalsResponse]:
        try:
            yield signal_pb2.WatchSignalsResponse()
            asyncio.get_running_loop().call_soon(self.goes_on.set)  # when the next is being sent
            while True:
                yield signal_pb2.WatchSignalsResponse(signal=signal_pb2.Signal(reason="word " * 500_000))
        finally:
            self.left = True


def serve(tmp_path: Path, services: _Services, call: Callable[[grpc.Channel], None]) -> None:
    """From its start until it has drained, which it does once `call` has done with it."""
    config = ServerConfig(data=tmp_path / "data", listen="127.0.0.1:0", drain_seconds=60)

    def calling(address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            call(channel)

    async def main() -> None:
        server = GrpcServer(config, services, Stats(), AccessCounts(), CallCounts())
        await server.start()
        await asyncio.to_thread(calling, server.address)
        await server.drain()

    asyncio.run(main())


def test_what_runs_a_call_is_over_before_the_server_is(tmp_path: Path) -> None:
    """Otherwise it is cancelled with the loop: gRPC may log that as an error, with a traceback."""
    services = _SlowToLeave()

    def call(channel: grpc.Channel) -> None:
        with pytest.raises(grpc.RpcError, match="the end"):
            signal_pb2_grpc.SignalServiceStub(channel).GetSignal(signal_pb2.GetSignalRequest(), timeout=60)

    serve(tmp_path, services, call)
    assert services.left


def test_a_caller_that_hangs_up_while_it_is_answered_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """gRPC logs one, with a traceback, where it hears of what could not be sent before it hears why."""
    services = _Wordy()

    def call(channel: grpc.Channel) -> None:
        watch = signal_pb2_grpc.SignalServiceStub(channel).WatchSignals(
            signal_pb2.WatchSignalsRequest(), timeout=60
        )
        next(watch)
        assert services.goes_on.wait(60)
        # Answered after what is being sent has begun to be, on the same connection.
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
        watch.cancel()

    serve(tmp_path, services, call)
    assert services.left
    assert not caplog.records
