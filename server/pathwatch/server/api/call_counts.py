"""What became of gRPC calls since the server started, by method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from pathwatch.server.engine.stats import Histogram
from pathwatch.v1 import routing_pb2, run_pb2, signal_pb2

HANDLING_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds, seconds: calls of one answer take 1 to 100 ms."""
UNKNOWN = "unknown"
"""Service, method and type of all calls of methods that this server does not have."""


@dataclass(slots=True, kw_only=True)
class MethodCounts:
    """Calls of one method. Written on the event loop, read from anywhere."""

    type: str
    """unary, server_stream or bidi_stream."""
    service: str
    """Full name."""
    method: str
    started: int = 0
    in_flight: int = 0
    handled: dict[str, int] = field(default_factory=lambda: {grpc.StatusCode.OK.name: 0})
    """Calls that have ended, by the name of their status code."""
    handling: Histogram = field(
        default_factory=lambda: Histogram(HANDLING_BUCKETS, [0] * (len(HANDLING_BUCKETS) + 1))
    )
    """Seconds from the start of a call to its end."""
    received: int = 0
    received_bytes: int = 0
    """Of messages as they were serialized: not compressed, without what HTTP/2 adds."""
    sent: int = 0
    sent_bytes: int = 0

    def start(self) -> None:
        """A call has begun."""
        self.started += 1
        self.in_flight += 1

    def end(self, code: grpc.StatusCode, seconds: float) -> None:
        """A call that had begun is over."""
        self.in_flight -= 1
        self.handled[code.name] = self.handled.get(code.name, 0) + 1
        self.handling.observe(seconds)


class CallCounts:
    """Calls by method; of the methods that there are, so that callers cannot make up any."""

    def __init__(self) -> None:
        self._unknown = MethodCounts(type=UNKNOWN, service=UNKNOWN, method=UNKNOWN)
        self._methods: Mapping[str, MethodCounts] = {
            f"/{service.full_name}/{method.name}": _counts_of(method)
            for file in (routing_pb2, run_pb2, signal_pb2, health_pb2, reflection_pb2)
            for service in file.DESCRIPTOR.services_by_name.values()
            for method in service.methods
        }

    def of(self, path: str) -> MethodCounts:
        """Counts of `/service/method`."""
        return self._methods.get(path, self._unknown)

    def all(self) -> tuple[MethodCounts, ...]:
        """Counts of all methods, the unknown ones last."""
        return (*self._methods.values(), self._unknown)


def _counts_of(method: MethodDescriptor) -> MethodCounts:
    if method.client_streaming:
        kind = "bidi_stream"  # there is no method that only the client streams to
    else:
        kind = "server_stream" if method.server_streaming else "unary"
    return MethodCounts(type=kind, service=method.containing_service.full_name, method=method.name)
