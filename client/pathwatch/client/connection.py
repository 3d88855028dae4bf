"""A channel with its stubs."""

from __future__ import annotations

import atexit
import gc

import grpc

from pathwatch.v1 import routing_pb2_grpc, run_pb2_grpc, signal_pb2_grpc


class Connection:
    """Made whole before another thread can close it: a stub made on a closed channel crashes the process.

    gRPC 1.85 registers the methods of a stub with its C core without looking whether the channel is still
    there. Calls of stubs that were made before only raise ValueError.
    """

    made = False
    """Whether there has been any in this process."""

    def __init__(self, channel: grpc.Channel) -> None:
        Connection.made = True
        self.routing = routing_pb2_grpc.RoutingServiceStub(channel)
        self.runs = run_pb2_grpc.RunServiceStub(channel)
        self.signals = signal_pb2_grpc.SignalServiceStub(channel)
        self._channel = channel

    def wait_ready(self, timeout: float) -> bool:
        """Whether the server accepts it within so many seconds."""
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=timeout)
        except grpc.FutureTimeoutError:
            return False
        finally:
            ready.cancel()
        return True

    def close(self) -> None:
        """End all calls; from any thread, more than once."""
        self._channel.close()


def _forget_calls() -> None:
    """Let go of calls that are over while gRPC's threads still run.

    A call that failed is its own exception and in a cycle with its traceback; when it is collected it takes
    its lock. At the interpreter's end a thread of gRPC may have been stopped for good holding that very lock:
    the process would never exit.
    """
    if Connection.made:
        gc.collect()


# Before those of the modules that import this one: handlers run in reverse order, and theirs end the calls.
atexit.register(_forget_calls)
