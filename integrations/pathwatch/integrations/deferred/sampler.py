"""A sampler that keeps a few samples per group back until late in the run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sized
from typing import Any

import numpy as np
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DistributedSampler, Sampler

from pathwatch.integrations.deferred.choice import Groups, Indices, members_of, smallest_by_hash
from pathwatch.integrations.deferred.order import order_of
from pathwatch.integrations.deferred.schedule import Schedule
from pathwatch.integrations.deferred.visits import ScheduledVisits


class DeferredSampler(Sampler[int]):  # type: ignore[misc]
    """Draws a training set so that a few samples per group come only after a set point of the run.

        sampler = DeferredSampler(dataset, groups, batch_size=512, steps=10_000)
        loader = DataLoader(dataset, sampler=sampler, batch_size=512 // world_size)

    Until then their loss is held-out loss; from then on they are samples like any other, mixed into the rest.
    As many samples are drawn as without it, in as many steps, and each deferred one at least once. Everything
    follows from the arguments and the epoch: it is the same on every rank and after every restart.

    The epoch goes up by itself after a whole pass; `set_epoch` sets it.
    """

    def __init__(
        self,
        source: Sized | Sampler[int],
        groups: Groups,
        *,
        batch_size: int,
        steps: int | None = None,
        epochs: float = 1.0,
        accumulation: int = 1,
        per_group: int = 32,
        release_at: float = 0.9,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
        drop_last: bool = False,
    ) -> None:
        """Choose what is deferred.

        Args:
            source: a map-style dataset, drawn shuffled as by torch's `DistributedSampler`; or one of these,
                or another sampler that draws each sample once an epoch, to be drawn as it would.
            groups: data group of every sample, by its index in the dataset; None = in none, never deferred.
            batch_size: samples of an optimizer step, over all ranks and micro-batches.
            steps: optimizer steps of the run. None = those of `epochs`.
            epochs: passes of the run over its training set.
            accumulation: micro-batches of an optimizer step.
            per_group: how many samples of each group are deferred.
            release_at: part of the steps after which they are drawn (docs/probe.md says why 0.9).
            seed: of the choice, and of the order where `source` gives none.
            num_replicas: data-parallel ranks that draw a share each, as in `DistributedSampler`; None = those
                of the process group. 1 where a framework shares out what the sampler gives (accelerate).
            rank: which of them this is.
            drop_last: whether the loader drops an epoch's last incomplete batch.

        Raises:
            ValueError: arguments that do not fit together, groups too small, or too little of the run is left
                after the release.
        """
        self._order = order_of(source, seed)
        cut = drop_last
        if isinstance(source, DistributedSampler):
            num_replicas, rank, cut = source.num_replicas, source.rank, source.drop_last
        self.num_replicas, self.rank = _place(num_replicas, rank)
        if batch_size < 1 or accumulation < 1 or batch_size % (self.num_replicas * accumulation):
            raise ValueError(
                f"batch_size must be that of a whole optimizer step, a multiple of {self.num_replicas} ranks "
                f"· {accumulation} micro-batches; got {batch_size}"
            )
        indices_N = np.sort(self._order(0))
        if not len(indices_N):
            raise ValueError("no samples to draw")
        self.members = members_of(groups, indices_N)
        """Group name → indices of all its samples, ascending."""
        self.deferred = {
            name: _chosen(name, indices, per_group, seed) for name, indices in self.members.items()
        }
        """Group name → indices of its deferred samples."""
        short = len(indices_N) % self.num_replicas
        padding = 0 if not short else -short if cut else self.num_replicas - short
        self._total = len(indices_N) + padding
        draws = self._total - self._total % (batch_size // accumulation) if drop_last else self._total
        epoch_steps = -(-draws // batch_size)
        self._schedule = Schedule(
            deferred_D=np.concatenate(list(self.deferred.values())),
            size=len(indices_N),
            draws=draws,
            step_draws=batch_size,
            steps=math.ceil(epochs * epoch_steps) if steps is None else steps,
            release_at=release_at,
            seed=seed,
        )
        self.epoch = 0
        """Pass that is drawn next, or being drawn."""
        self._drawn = 0
        self._skip = 0
        self._newest: tuple[int, Indices] | None = None

    @property
    def release_step(self) -> int:
        """Optimizer steps done before the first deferred sample may be drawn."""
        return self._schedule.release_step

    def __len__(self) -> int:
        """Samples that this rank draws in an epoch."""
        return self._total // self.num_replicas

    def __iter__(self) -> Iterator[int]:
        """Draw this rank's samples of the epoch, those left after `load_state_dict` or `go_to_step`."""
        epoch, self._drawn, self._skip = self.epoch, self._skip, 0
        own = self._drawn_order(epoch)[self.rank :: self.num_replicas]
        for index in own[self._drawn :].tolist():
            self._drawn += 1
            yield index
        self.epoch, self._drawn = epoch + 1, 0

    def set_epoch(self, epoch: int) -> None:
        """Draw this epoch next; from its beginning, unless it is the one to go on with."""
        if epoch != self.epoch:
            self.epoch, self._skip, self._drawn = epoch, 0, 0

    def go_to_step(self, step: int) -> None:
        """Go on behind the first `step` optimizer steps: exact however far a loader had prefetched."""
        self.epoch, done = self._schedule.position(step)
        self._skip = self._drawn = done // self.num_replicas

    def state_dict(self) -> dict[str, Any]:
        """Where the drawing stands; what a loader has prefetched counts as drawn."""
        return {"epoch": self.epoch, "drawn": self._drawn * self.num_replicas, "size": self._schedule.size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a sampler of the same arguments stood; the number of ranks may differ.

        Raises:
            ValueError: the state is of another training set.
        """
        if state["size"] != self._schedule.size:
            raise ValueError(
                f"the state is of a sampler of {state['size']} samples, this one draws {self._schedule.size}"
            )
        self.epoch = int(state["epoch"])
        self._skip = self._drawn = int(state["drawn"]) // self.num_replicas

    def visits(self, sample_ids: Tensor) -> ScheduledVisits:
        """How often samples were trained on at any step, if training follows this sampler."""
        return ScheduledVisits(self, sample_ids)

    def position(self, step: int) -> tuple[int, int]:
        """Epoch, and draws of it that are done over all ranks, once `step` optimizer steps are done."""
        return self._schedule.position(step)

    def trained_order(self, epoch: int) -> Indices:
        """All draws of an epoch that are trained on, over all ranks."""
        return self._drawn_order(epoch)[: self._schedule.draws]

    def _drawn_order(self, epoch: int) -> Indices:
        """All draws of an epoch, over all ranks: every rank has as many."""
        if self._newest is None or self._newest[0] != epoch:
            order = self._schedule.order(self._order(epoch), epoch)
            self._newest = epoch, np.resize(order, self._total)
        return self._newest[1]


def _place(num_replicas: int | None, rank: int | None) -> tuple[int, int]:
    joined = dist.is_available() and dist.is_initialized()
    replicas = num_replicas if num_replicas is not None else dist.get_world_size() if joined else 1
    place = rank if rank is not None else dist.get_rank() if joined and replicas > 1 else 0
    if not 0 <= place < replicas:
        raise ValueError(f"rank must be one of {replicas} replicas, got {place}")
    return replicas, place


def _chosen(name: str, indices_N: Indices, count: int, seed: int) -> Indices:
    if count < 1:
        raise ValueError(f"per_group must be at least 1, got {count}")
    if count >= len(indices_N):
        raise ValueError(
            f"group {name!r} has {len(indices_N)} samples, too few to keep {count} back: lower per_group"
        )
    return smallest_by_hash(indices_N, count, seed)
