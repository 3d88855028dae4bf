"""A run at an even pace that measures how long its signals take."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterator

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

GROUPS = ("math", "code")
SAMPLES = 16
"""Observations per group and step."""


class PacedRun:
    """One rank; a context manager.

    Its losses fall and every step is a checkpoint, so that every round has a better one: a new signal.
    """

    def __init__(self, address: str, run: str) -> None:
        self._run = run
        self._channel = grpc.insecure_channel(address)
        self._runs = run_pb2_grpc.RunServiceStub(self._channel)
        config = run_pb2.RunConfig(topology=topology())
        self._runs.CreateRun(run_pb2.CreateRunRequest(name=run, config=config), timeout=30)
        self._requests: queue.SimpleQueue[routing_pb2.StreamRoutingRequest | None] = queue.SimpleQueue()
        self._heard: dict[int, float] = {}
        """When the signal of a step came, by the monotonic clock."""
        self._changed = threading.Condition()
        self._step = 0
        self._sequence = 0
        self._call = routing_pb2_grpc.RoutingServiceStub(self._channel).StreamRouting(
            iter(self._requests.get, None)
        )
        self._watch = signal_pb2_grpc.SignalServiceStub(self._channel).WatchSignals(
            signal_pb2.WatchSignalsRequest(run=run)
        )
        hello = routing_pb2.StreamHello(run=run, world_size=1, session="paced")
        self._requests.put(routing_pb2.StreamRoutingRequest(hello=hello))
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._listen, self._take_acks)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> PacedRun:
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.put(None)
        self._watch.cancel()  # type: ignore[no-untyped-call]
        self._call.cancel()  # type: ignore[no-untyped-call]
        self._channel.close()

    def latencies(self, seconds: float, *, interval: float) -> Iterator[float]:
        """For a while, one step per `interval`: seconds from its last message to its signal.

        A step that comes late does not put off the next: those behind it count their waiting, too.
        """
        self._register_ahead(math.ceil(seconds / interval) + 1)
        started = time.monotonic()
        sent: dict[int, float] = {}
        while (due := started + len(sent) * interval) < started + seconds:
            time.sleep(max(0.0, due - time.monotonic()))
            self._send_step()
            sent[self._step] = due
        with self._changed:
            if not self._changed.wait_for(lambda: max(self._heard, default=0) >= self._step, 120):
                raise RuntimeError(f"no signal for step {self._step} within two minutes")
            heard = dict(self._heard)
        for step, at in sent.items():
            # A signal says what all rounds up to its step say.
            yield min(when for known, when in heard.items() if known >= step) - at

    def _send_step(self) -> None:
        self._step += 1
        for group in GROUPS:
            observations = batch(group, n=SAMPLES, loss=5.0 / self._step)
            observations.step = self._step
            self._put(routing_pb2.StreamRoutingRequest(batch=observations))
        self._put(routing_pb2.StreamRoutingRequest(watermark=routing_pb2.Watermark(step=self._step)))

    def _register_ahead(self, steps: int) -> None:
        """Checkpoints of the steps to come: a signal in which nothing changes is not sent."""
        for step in range(self._step + 1, self._step + 1 + steps):
            request = run_pb2.RegisterCheckpointRequest(
                run=self._run, checkpoint=run_pb2.Checkpoint(step=step)
            )
            self._runs.RegisterCheckpoint(request, timeout=60)

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
            for _ in self._call:
                pass
        except grpc.RpcError:
            pass  # cancelled
