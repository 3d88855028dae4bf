"""What a data-parallel job observes: every sample once, more of them the larger the fleet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bench.advice.rank import SimulatedRank
from bench.overload.messages import EXPERTS, LAYERS, topology
from pathwatch.client.observations import Observations, checked
from pathwatch.v1 import run_pb2

GROUPS = tuple(f"group-{i}" for i in range(8))
CAPACITY = 512
WINDOW_STEPS = 10
OBSERVED = (0, 5)
"""Steps of a window that are observed."""


@dataclass(frozen=True)
class Workload:
    """A fleet and how much each of its ranks sees."""

    ranks: int
    samples: int
    """Of each group, by each rank, at each observed step."""
    groups: int = len(GROUPS)
    """Of GROUPS, how many are sent: what is sent of groups grows with their number, none sees another."""

    def whole(self, of_groups: int, watermarks: int) -> float:
        """Bytes of all GROUPS from those of the groups that are sent, and those of watermarks."""
        return of_groups * len(GROUPS) / self.groups + watermarks

    @property
    def config(self) -> run_pb2.RunConfig:
        """Of the run."""
        return run_pb2.RunConfig(
            topology=topology(),
            mode=run_pb2.OBSERVATION_MODE_STREAM,
            window_steps=WINDOW_STEPS,
            capacity=CAPACITY,
            grace_seconds=600,
        )

    @cached_property
    def _rows(self) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        rng = np.random.default_rng(0)
        weights_NLK = rng.dirichlet(np.full(EXPERTS, 0.1), (257, LAYERS)).astype(np.float16)
        return weights_NLK, rng.random(257).astype(np.float32)

    def steps(self, window: int) -> Iterator[int]:
        """Observed steps of a window, by its number."""
        return (window * WINDOW_STEPS + step for step in OBSERVED)

    def observations(self, rank: int, step: int) -> Iterator[Observations]:
        """What a rank observes at a step."""
        weights_NLK, losses_N = self._rows
        first = (step * self.ranks + rank) * self.samples
        ids_N = np.arange(first, first + self.samples)
        for number, group in enumerate(GROUPS[: self.groups]):
            rows_N = (ids_N * 31 + number) % len(losses_N)
            yield checked(
                step=step,
                group=group,
                sample_ids=ids_N,
                weights=weights_NLK[rows_N],
                raw=None,
                losses=losses_N[rows_N],
                target_weights=None,
                layers=None,
                token_part=0,
                token_parts=1,
            )

    def needed_bytes(self) -> int:
        """Bytes of the messages that hold as many samples of each group as a window keeps."""
        return sum(
            piece.request().ByteSize()
            for one in Workload(1, CAPACITY).observations(0, 0)
            for piece in one.split(256 << 10)
        )

    def bytes_without_advice(self) -> float:
        """Bytes that the fleet would send in a window, from those of one rank that holds nothing back."""
        rank = SimulatedRank("advice", 1)
        for step in self.steps(0):
            for one in self.observations(0, step):
                rank.observe(one)
            rank.watermark(step)
        rank.watermark(WINDOW_STEPS - 1)
        requests = list(rank.messages())
        watermarks = sum(request.ByteSize() for request in requests if request.HasField("watermark"))
        total = sum(request.ByteSize() for request in requests)
        return self.ranks * self.whole(total - watermarks, watermarks)
