"""A run at an even pace that measures how long its signals take."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from bench.overload.messages import batch, topology
from bench.watched_run import WatchedRun
from pathwatch.v1 import run_pb2

GROUPS = ("math", "code")
SAMPLES = 16
"""Observations per group and step."""


class PacedRun:
    """One rank; a context manager.

    Its losses fall and every step is a checkpoint, so that every round has a better one: a new signal.
    """

    def __init__(self, address: str, run: str) -> None:
        self._run = WatchedRun(address, run, run_pb2.RunConfig(topology=topology()))
        self._step = 0

    def __enter__(self) -> PacedRun:
        return self

    def __exit__(self, *error: object) -> None:
        self._run.__exit__(*error)

    def latencies(self, seconds: float, *, interval: float) -> Iterator[float]:
        """For a while, one step per `interval`: seconds from its last message to its signal.

        A step that comes late does not put off the next: those behind it count their waiting, too.
        """
        self._run.register(range(self._step + 1, self._step + 2 + math.ceil(seconds / interval)))
        started = time.monotonic()
        sent: dict[int, float] = {}
        while (due := started + len(sent) * interval) < started + seconds:
            time.sleep(max(0.0, due - time.monotonic()))
            self._send_step()
            sent[self._step] = due
        for step, at in sent.items():
            yield self._run.told_at(step) - at

    def _send_step(self) -> None:
        self._step += 1
        for group in GROUPS:
            observations = batch(group, n=SAMPLES, loss=5.0 / self._step)
            observations.step = self._step
            self._run.send(observations)
        self._run.complete(self._step)
