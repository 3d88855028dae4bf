"""A relay that goes while its ranks come."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from standing_in import StandIn, serving

from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import RelayConfig
from pathwatch.server.relay import routing
from pathwatch.v1 import routing_pb2, routing_pb2_grpc

Eventually = Callable[[Callable[[], Any]], Any]


@pytest.mark.parametrize("is_served", [True, False])
def test_streams_that_are_just_being_opened_end_too(
    is_served: bool, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "_TAKEOVER_SECONDS", 120.0)
    server = StandIn()
    with serving(server) as there:
        if is_served:  # and what is known of its run is still being asked for
            server.answering.clear()
        else:  # and is about to be taken over
            server.owner = there
        relay = BackgroundServer(RelayConfig(upstream=there, drain_seconds=120))
        relay.__enter__()
        leaving = threading.Thread(target=relay.__exit__, args=(None, None, None))
        with grpc.insecure_channel(relay.grpc_address) as channel:
            health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
            assert next(health).status == health_pb2.HealthCheckResponse.SERVING
            requests: queue.Queue[routing_pb2.StreamRoutingRequest | None] = queue.Queue()
            hello = routing_pb2.StreamHello(run="run", world_size=1, session="life")
            requests.put(routing_pb2.StreamRoutingRequest(hello=hello))
            stub = routing_pb2_grpc.RoutingServiceStub(channel)
            answers = stub.StreamRouting(iter(requests.get, None), timeout=45)
            eventually(lambda: server.asked >= 2)
            leaving.start()
            assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
            server.answering.set()
            with pytest.raises(grpc.RpcError) as ended:
                for _ in answers:
                    pass
            requests.put(None)
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        leaving.join(60)
