"""A channel with its stubs."""

from __future__ import annotations

import grpc

from pathwatch.v1 import routing_pb2_grpc, run_pb2_grpc, signal_pb2_grpc


class Connection:
    """Made whole before another thread can close it: a stub made on a closed channel crashes the process.

    gRPC 1.85 registers the methods of a stub with its C core without looking whether the channel is still
    there. Calls of stubs that were made before only raise ValueError.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self.routing = routing_pb2_grpc.RoutingServiceStub(channel)
        self.runs = run_pb2_grpc.RunServiceStub(channel)
        self.signals = signal_pb2_grpc.SignalServiceStub(channel)
        self._channel = channel

    def close(self) -> None:
        """End all calls; from any thread, more than once."""
        self._channel.close()
