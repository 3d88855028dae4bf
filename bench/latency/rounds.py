"""A run whose rounds arrive as a training job's do, and how long its signals take."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Iterator
from enum import Enum

import grpc
import numpy as np

from bench.overload.messages import batch, topology
from pathwatch.client.tensors import to_tensor
from pathwatch.v1 import (
    routing_pb2,
    routing_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
    signal_pb2,
    signal_pb2_grpc,
)

GROUPS = tuple(f"group{number}" for number in range(8))
SAMPLES = 512
"""Observations of each group in a round."""
_PART = 64
"""Observations per message: a forward pass."""
_PARTS = SAMPLES // _PART
_ARRIVING = 0.75
"""Share of the interval between two rounds over which observations arrive."""
_PATIENCE = 120.0
"""Seconds until a signal that does not come is an error."""


class Arrival(Enum):
    """In which order a round's observations come."""

    BY_GROUP = "group after group, as a probe is read"
    MIXED = "all groups up to the end, as a stream of training batches has them"


class Rounds:
    """One rank of one run; a context manager.

    Its losses fall and every round has a checkpoint, so that every round has a better one: a new signal.
    """

    def __init__(self, address: str, run: str, arrival: Arrival) -> None:
        self._run = run
        self._arrival = arrival
        self._channel = grpc.insecure_channel(address)
        self._runs = run_pb2_grpc.RunServiceStub(self._channel)
        config = run_pb2.RunConfig(topology=topology())
        if arrival is Arrival.MIXED:
            config.mode, config.window_steps = run_pb2.OBSERVATION_MODE_STREAM, _PARTS
        self._runs.CreateRun(run_pb2.CreateRunRequest(name=run, config=config), timeout=30)
        self._requests: queue.SimpleQueue[routing_pb2.StreamRoutingRequest | None] = queue.SimpleQueue()
        self._heard: dict[int, float] = {}
        """When the signal of a step came, by the monotonic clock."""
        self._changed = threading.Condition()
        self._round = 0
        self._sequence = 0
        self._batches = {
            (group, part): batch(group, n=_PART, first_id=part * _PART)
            for group in GROUPS
            for part in range(_PARTS)
        }
        self._call = routing_pb2_grpc.RoutingServiceStub(self._channel).StreamRouting(
            iter(self._requests.get, None)
        )
        self._watch = signal_pb2_grpc.SignalServiceStub(self._channel).WatchSignals(
            signal_pb2.WatchSignalsRequest(run=run)
        )
        hello = routing_pb2.StreamHello(run=run, world_size=1, session="rounds")
        self._requests.put(routing_pb2.StreamRoutingRequest(hello=hello))
        for target in (self._listen, self._take_acks):
            threading.Thread(target=target, daemon=True).start()

    def __enter__(self) -> Rounds:
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.put(None)
        self._watch.cancel()  # type: ignore[no-untyped-call]
        self._call.cancel()  # type: ignore[no-untyped-call]
        self._channel.close()

    def latencies(self, count: int, *, interval: float) -> Iterator[float]:
        """So many rounds, one per `interval` seconds: seconds from a round's last observation to its signal.

        A signal that comes late does not put off the next round, which then waits for its turn, too.
        """
        rounds = range(self._round + 1, self._round + 1 + count)
        self._round += count
        for number in rounds:
            checkpoint = run_pb2.Checkpoint(step=self._last_step(number))
            request = run_pb2.RegisterCheckpointRequest(run=self._run, checkpoint=checkpoint)
            self._runs.RegisterCheckpoint(request, timeout=60)
        started = time.monotonic()
        sent = []
        for turn, number in enumerate(rounds):
            sent.append(self._send(number, started + turn * interval, _ARRIVING * interval))
        for number, at in zip(rounds, sent, strict=True):
            yield self._await(self._last_step(number)) - at

    def _send(self, number: int, started: float, seconds: float) -> float:
        """A round's observations, spread over so many seconds, and its watermark; when the last was sent."""
        if self._arrival is Arrival.BY_GROUP:
            order = list(itertools.product(GROUPS, range(_PARTS)))
        else:
            order = [(group, part) for part in range(_PARTS) for group in GROUPS]
        at = started
        for place, (group, part) in enumerate(order, 1):
            due = started + place / len(order) * seconds
            time.sleep(max(0.0, due - time.monotonic()))
            observations = routing_pb2.ObservationBatch()
            observations.CopyFrom(self._batches[group, part])
            observations.step = number if self._arrival is Arrival.BY_GROUP else number * _PARTS + part
            observations.losses.CopyFrom(to_tensor(np.full(_PART, 5.0 / number, np.float32)))
            at = time.monotonic()
            self._put(routing_pb2.StreamRoutingRequest(batch=observations))
        watermark = routing_pb2.Watermark(step=self._last_step(number))
        self._put(routing_pb2.StreamRoutingRequest(watermark=watermark))
        return at

    def _last_step(self, number: int) -> int:
        return number if self._arrival is Arrival.BY_GROUP else (number + 1) * _PARTS - 1

    def _await(self, step: int) -> float:
        """When the first signal came that says what the round at `step` says, or a later one."""
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
