"""The order in which a job would draw its samples if none were deferred."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import BatchSampler, DistributedSampler, IterableDataset, Sampler

from pathwatch.integrations.deferred.choice import Indices


class Order(Protocol):
    """Each sample once per epoch, the same on every rank."""

    def __call__(self, epoch: int) -> Indices:
        """The indices of an epoch in their order."""


def order_of(source: Sized | Sampler[int], seed: int) -> Order:
    """The order that a sampler gives, or a shuffled one of a dataset.

    Raises:
        ValueError: the source has no order of single samples.
    """
    if isinstance(source, IterableDataset):
        raise ValueError(
            "samples of an IterableDataset cannot be deferred: it has no index to draw them by; "
            "give a map-style dataset"
        )
    if isinstance(source, BatchSampler):
        raise ValueError("deferring samples needs a sampler of single samples, not of batches")
    if isinstance(source, DistributedSampler):
        return _Distributed(source)
    if isinstance(source, Sampler):
        return _Sampled(source, seed)
    return _Shuffled(len(source), seed)


class _Shuffled:
    """As `DistributedSampler` shuffles, for all ranks."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._seed = seed

    def __call__(self, epoch: int) -> Indices:
        generator = torch.Generator().manual_seed(self._seed + epoch)
        shuffled: Indices = torch.randperm(self._size, generator=generator).numpy()
        return shuffled


class _Distributed:
    """What the ranks of a `DistributedSampler` draw together."""

    def __init__(self, sampler: DistributedSampler[Any]) -> None:
        size = len(sampler.dataset)
        self._size = size
        self._shuffled = _Shuffled(size, sampler.seed) if sampler.shuffle else None

    def __call__(self, epoch: int) -> Indices:
        return np.arange(self._size) if self._shuffled is None else self._shuffled(epoch)


class _Sampled:
    """What another sampler draws; torch's random numbers, if it needs some, follow from seed and epoch."""

    def __init__(self, sampler: Sampler[int], seed: int) -> None:
        self._sampler = sampler
        self._seed = seed
        drawn = self(0)
        if not np.array_equal(drawn, self(0)):
            raise ValueError(
                f"deferring samples needs an order that can be drawn again; that of {type(sampler).__name__} "
                "does not follow from its epoch and torch's random numbers"
            )
        first, second = np.sort(drawn), np.sort(self(1))
        if len(np.unique(first)) != len(first) or not np.array_equal(first, second):
            raise ValueError(
                "deferring samples needs a sampler that draws each sample once an epoch; "
                f"{type(sampler).__name__} draws some twice, or others in each epoch"
            )

    def __call__(self, epoch: int) -> Indices:
        set_epoch = getattr(self._sampler, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)
        generator = getattr(self._sampler, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(self._seed + epoch)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self._seed + epoch)
            return np.fromiter(self._sampler, dtype=np.int64)
