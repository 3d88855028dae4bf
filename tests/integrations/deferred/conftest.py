"""A training loop that only notes which samples it was given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import pytest
from torch.utils.data import Sampler


@dataclass(frozen=True)
class Loop:
    """What a job does with its ranks' samplers: batches, accumulation, epochs; no step crosses an epoch."""

    micro_batch: int
    accumulation: int
    drop_last: bool

    def epoch(self, samplers: Sequence[Sampler[int]]) -> Iterator[list[int]]:
        """Samples of each optimizer step of an epoch, over all ranks."""
        batches_of_ranks = [list(self._batches(list(sampler))) for sampler in samplers]
        assert len({len(batches) for batches in batches_of_ranks}) == 1, "ranks take as many steps"
        together = [list(chain.from_iterable(batches)) for batches in zip(*batches_of_ranks, strict=True)]
        for start in range(0, len(together), self.accumulation):
            yield list(chain.from_iterable(together[start : start + self.accumulation]))

    def steps(self, samplers: Sequence[Sampler[int]], count: int) -> list[list[int]]:
        """Samples of each of the first steps, epoch after epoch."""
        taken: list[list[int]] = []
        while len(taken) < count:
            taken += self.epoch(samplers)
        return taken[:count]

    def _batches(self, drawn: list[int]) -> Iterator[list[int]]:
        for start in range(0, len(drawn), self.micro_batch):
            batch = drawn[start : start + self.micro_batch]
            if len(batch) == self.micro_batch or not self.drop_last:
                yield batch


@pytest.fixture(scope="session")
def loop() -> Callable[..., Loop]:
    """A loop of some shape."""
    return Loop
