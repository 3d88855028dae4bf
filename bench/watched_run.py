"""One rank of one run, and when the run's signals come: what latencies of verdicts are measured with."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable

import grpc

from pathwatch.v1 import (
    routing_pb2,
    routing_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
    signal_pb2,
    signal_pb2_grpc,
)

_PATIENCE = 120.0
"""Seconds until a signal that does not come is an error."""


class WatchedRun:
    """A context manager; its stream and its watch end with it."""

    def __init__(self, address: str, run: str, config: run_pb2.RunConfig) -> None:
        self._run = run
        self._channel = grpc.insecure_channel(address)
        self._runs = run_pb2_grpc.RunServiceStub(self._channel)
        self._runs.CreateRun(run_pb2.CreateRunRequest(name=run, config=config), timeout=30)
        self._requests: queue.SimpleQueue[routing_pb2.StreamRoutingRequest | None] = queue.SimpleQueue()
        self._sequence = 0
        self._heard: dict[int, float] = {}
        """When the signal of a step came, by the monotonic clock."""
        self._changed = threading.Condition()
        self._call = routing_pb2_grpc.RoutingServiceStub(self._channel).StreamRouting(
            iter(self._requests.get, None)
        )
        self._watch = signal_pb2_grpc.SignalServiceStub(self._channel).WatchSignals(
            signal_pb2.WatchSignalsRequest(run=run)
        )
        hello = routing_pb2.StreamHello(run=run, world_size=1, session="watched")
        self._requests.put(routing_pb2.StreamRoutingRequest(hello=hello))
        for target in (self._listen, self._take_acks):
            threading.Thread(target=target, daemon=True).start()

    def __enter__(self) -> WatchedRun:
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.put(None)
        self._watch.cancel()  # type: ignore[no-untyped-call]
        self._call.cancel()  # type: ignore[no-untyped-call]
        self._channel.close()

    def register(self, steps: Iterable[int]) -> None:
        """Checkpoints of the steps to come: a signal in which nothing changes is not sent."""
        for step in steps:
            checkpoint = run_pb2.Checkpoint(step=step)
            request = run_pb2.RegisterCheckpointRequest(run=self._run, checkpoint=checkpoint)
            self._runs.RegisterCheckpoint(request, timeout=60)

    def send(self, observations: routing_pb2.ObservationBatch) -> None:
        """The rank's next message."""
        self._put(routing_pb2.StreamRoutingRequest(batch=observations))

    def complete(self, step: int) -> None:
        """The rank has sent everything up to `step`."""
        self._put(routing_pb2.StreamRoutingRequest(watermark=routing_pb2.Watermark(step=step)))

    def told_at(self, step: int) -> float:
        """When, by the monotonic clock, the first signal came that says what the round at `step` says.

        A signal says what all rounds up to its step say. Waits for it.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: max(self._heard, default=0) >= step, _PATIENCE):
                raise RuntimeError(f"no signal for step {step} within {_PATIENCE:g} seconds")
            return min(when for known, when in self._heard.items() if known >= step)

    def _put(self, request: routing_pb2.StreamRoutingRequest) -> None:
        self._sequence += 1
        request.sequence = self._sequence
        self._requests.put(request)

    def _listen(self) -> None:
        try:
            for response in self._watch:
                now = time.monotonic()
                with self._changed:
                    self._heard.setdefault(response.signal.step, now)
                    self._changed.notify()
        except grpc.RpcError:
            pass  # cancelled

    def _take_acks(self) -> None:
        try:
            for response in self._call:
                if response.rejections:
                    raise RuntimeError(f"refused: {response.rejections[0]}")
        except grpc.RpcError:
            pass  # cancelled
