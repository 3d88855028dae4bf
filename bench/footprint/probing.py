"""A run in probe mode whose windows are as large as the paper's."""

from __future__ import annotations

import queue
import time

import grpc

from bench.overload.messages import batch, topology
from pathwatch.v1 import (
    routing_pb2,
    routing_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
    signal_pb2,
    signal_pb2_grpc,
)

GROUPS, SAMPLES = 8, 512
_PART = 256
"""Observations per message."""
_PATIENCE = 120.0
_MESSAGES = [
    batch(f"group{group}", n=_PART, first_id=first)
    for group in range(GROUPS)
    for first in range(0, SAMPLES, _PART)
]


class ProbedRun:
    """One rank; a context manager. Every call returns when the server has taken or judged what it says."""

    def __init__(self, address: str, run: str) -> None:
        self._run = run
        self._sequence = 0
        self._requests: queue.SimpleQueue[routing_pb2.StreamRoutingRequest | None] = queue.SimpleQueue()
        self._channel = grpc.insecure_channel(address)
        config = run_pb2.RunConfig(topology=topology())
        run_pb2_grpc.RunServiceStub(self._channel).CreateRun(
            run_pb2.CreateRunRequest(name=run, config=config), timeout=30
        )
        self._call = routing_pb2_grpc.RoutingServiceStub(self._channel).StreamRouting(
            iter(self._requests.get, None)
        )
        hello = routing_pb2.StreamHello(run=run, world_size=1, session="probed")
        self._requests.put(routing_pb2.StreamRoutingRequest(hello=hello))

    def __enter__(self) -> ProbedRun:
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.put(None)
        self._call.cancel()  # type: ignore[no-untyped-call]
        self._channel.close()

    def observe(self, step: int) -> None:
        """A whole window, which stays open."""
        for message in _MESSAGES:
            message.step = step
            self._put(routing_pb2.StreamRoutingRequest(batch=message))
        self._await_acks()

    def close_window(self, step: int) -> None:
        """End it, and wait for the signal that knows it."""
        self._put(routing_pb2.StreamRoutingRequest(watermark=routing_pb2.Watermark(step=step)))
        self._await_acks()
        signals = signal_pb2_grpc.SignalServiceStub(self._channel)
        deadline = time.monotonic() + _PATIENCE
        request = signal_pb2.GetSignalRequest(run=self._run)
        while True:
            signal = signals.GetSignal(request, timeout=30).signal
            if signal.groups and signal.step >= step:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._run}: no signal for step {step} within {_PATIENCE:g} seconds")
            time.sleep(0.05)

    def _put(self, request: routing_pb2.StreamRoutingRequest) -> None:
        self._sequence += 1
        request.sequence = self._sequence
        self._requests.put(request)

    def _await_acks(self) -> None:
        for response in self._call:
            if response.rejections:
                raise RuntimeError(f"{self._run}: {response.rejections[0]}")
            if response.acked_sequence >= self._sequence:
                return
        raise RuntimeError(f"{self._run}: the stream ended with messages unacknowledged")
