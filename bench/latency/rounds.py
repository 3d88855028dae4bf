"""A run whose rounds arrive as a training job's do, and how long its signals take."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from enum import Enum

import numpy as np

from bench.overload.messages import batch, topology
from bench.watched_run import WatchedRun
from pathwatch.client.tensors import to_tensor
from pathwatch.v1 import routing_pb2, run_pb2

GROUPS = tuple(f"group{number}" for number in range(8))
SAMPLES = 512
"""Observations of each group in a round."""
_PART = 64
"""Observations per message: a forward pass."""
_PARTS = SAMPLES // _PART
_ARRIVING = 0.75
"""Share of the interval between two rounds over which observations arrive."""


class Arrival(Enum):
    """In which order a round's observations come."""

    BY_GROUP = "group after group, as a probe is read"
    MIXED = "all groups up to the end, as a stream of training batches has them"


class Rounds:
    """One rank of one run; a context manager.

    Its losses fall and every round has a checkpoint, so that every round has a better one: a new signal.
    """

    def __init__(self, address: str, run: str, arrival: Arrival) -> None:
        self._arrival = arrival
        config = run_pb2.RunConfig(topology=topology())
        if arrival is Arrival.MIXED:
            config.mode, config.window_steps = run_pb2.OBSERVATION_MODE_STREAM, _PARTS
        self._run = WatchedRun(address, run, config)
        self._round = 0
        self._batches = {
            (group, part): batch(group, n=_PART, first_id=part * _PART)
            for group in GROUPS
            for part in range(_PARTS)
        }

    def __enter__(self) -> Rounds:
        return self

    def __exit__(self, *error: object) -> None:
        self._run.__exit__(*error)

    def latencies(self, count: int, *, interval: float) -> Iterator[float]:
        """So many rounds, one per `interval` seconds: seconds from a round's last observation to its signal.

        A signal that comes late does not put off the next round, which then waits for its turn, too.
        """
        rounds = range(self._round + 1, self._round + 1 + count)
        self._round += count
        self._run.register(self._last_step(number) for number in rounds)
        started = time.monotonic()
        sent = []
        for turn, number in enumerate(rounds):
            sent.append(self._send(number, started + turn * interval, _ARRIVING * interval))
        for number, at in zip(rounds, sent, strict=True):
            yield self._run.told_at(self._last_step(number)) - at

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
            self._run.send(observations)
        self._run.complete(self._last_step(number))
        return at

    def _last_step(self, number: int) -> int:
        return number if self._arrival is Arrival.BY_GROUP else (number + 1) * _PARTS - 1
