"""Probe mode: a fixed set of training samples, re-read every N steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pathwatch.integrations.capture import TokenSelection


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeGroup:
    """Training samples of one data group, the same on every rank; all tensors have N rows."""

    inputs: Mapping[str, Tensor]
    """Arguments of the model's forward, by name, without labels."""
    sample_ids: Tensor
    """[N] int64, the ids by which the job knows these samples in training."""
    labels: Tensor | None = None
    """[N, S] what the model is to predict, -100 where nothing; None = no losses."""
    attention_mask: Tensor | None = None
    """[N, S] 0 = padding; None = no padding. The model is given `inputs` only."""

    def __post_init__(self) -> None:
        rows = {name: len(tensor) for name, tensor in self.inputs.items()}
        rows["sample_ids"] = len(self.sample_ids)
        if self.labels is not None:
            rows["labels"] = len(self.labels)
        if self.attention_mask is not None:
            rows["attention_mask"] = len(self.attention_mask)
        if not self.inputs or len(set(rows.values())) > 1 or not len(self.sample_ids):
            raise ValueError(
                f"a probe group needs inputs, and as many rows everywhere, at least one; got {rows}"
            )
        if len(self.sample_ids.unique()) != len(self.sample_ids):
            raise ValueError("a probe group names a sample id twice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What to re-read, and how often."""

    groups: Mapping[str, ProbeGroup]
    """Group name → samples, a few hundred at most."""
    interval: int = 50
    """Optimizer steps between two readings; the first is before the first step."""
    batch_size: int = 64
    """Samples of one forward pass on each rank."""
    shift_labels: bool = True
    """True: the label at t + 1 is predicted at token t, as in transformers. False: at token t + 1 itself."""
    visits: bool = False
    """True: the job tells `Watch.visited` of every batch, so that samples not yet seen are known."""
    forward: Callable[[torch.nn.Module, Mapping[str, Tensor]], Tensor] | None = None
    """Engine and inputs → logits [N, S, V]. None: call the engine with the inputs by name and take `.logits`,
    a tuple's first item, or the output itself."""

    def __post_init__(self) -> None:
        if not self.groups:
            raise ValueError("a probe needs at least one group")
        if self.interval < 1 or self.batch_size < 1:
            raise ValueError(
                f"probe interval and batch size must be at least 1, got {self.interval} and {self.batch_size}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeBatch:
    """One forward pass of a rank's share."""

    group: str
    inputs: Mapping[str, Tensor]
    selection: TokenSelection
    positions: Tensor
    """[n] places of the kept samples within their group."""
    sample_ids: Tensor
    """[n] int64 of the kept samples; rows beyond n only keep ranks in step."""


def shard(probe: Probe, rank: int, world_size: int, device: torch.device) -> list[ProbeBatch]:
    """A rank's share of the probe, on its device.

    Samples are dealt out in turn. Every rank gets as many forward passes, of the same size, as the others,
    for models whose ranks must run in step (expert parallelism, ZeRO-3): short shares repeat a sample.
    """
    return [
        batch
        for name, group in probe.groups.items()
        for batch in _batches(probe, name, group, rank, world_size, device)
    ]


def _batches(
    probe: Probe, name: str, group: ProbeGroup, rank: int, world_size: int, device: torch.device
) -> Iterator[ProbeBatch]:
    total = len(group.sample_ids)
    share = -(-total // world_size)
    for start in range(0, share, probe.batch_size):
        slots = torch.arange(start, min(start + probe.batch_size, share)) * world_size + rank
        kept = slots[slots < total]
        rows = torch.where(slots < total, slots, 0)
        inputs = {key: tensor[rows].to(device) for key, tensor in group.inputs.items()}
        labels_BS = None if group.labels is None else group.labels[rows].to(device)
        mask_BS = None if group.attention_mask is None else group.attention_mask[rows].to(device)
        length = _length(inputs, labels_BS)
        selection = TokenSelection.of_batch(
            rows=len(rows),
            length=length,
            labels_BS=labels_BS,
            attention_mask_BS=mask_BS,
            shift_labels=probe.shift_labels,
            device=device,
        )
        yield ProbeBatch(
            group=name, inputs=inputs, selection=selection, positions=kept, sample_ids=group.sample_ids[kept]
        )


def _length(inputs: Mapping[str, Tensor], labels_BS: Tensor | None) -> int:
    if labels_BS is not None:
        return int(labels_BS.shape[1])
    return int(next(iter(inputs.values())).shape[1])
