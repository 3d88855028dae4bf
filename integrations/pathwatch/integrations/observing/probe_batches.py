"""A process's share of the probe, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pathwatch.integrations.capture import TokenSelection
from pathwatch.integrations.observing.probe import Probe, ProbeGroup

_TOKENS = 8192
"""Tokens of a forward pass where no batch size is told: logits of 2 GB with 128k words in half precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeBatch:
    """One forward pass of a rank's share; its tensors wait in host memory, ready to be copied."""

    group: str
    inputs: Mapping[str, Tensor]
    labels_BS: Tensor | None
    mask_BS: Tensor | None
    shift_labels: bool
    positions: Tensor
    """[n] places of the kept samples within their group."""
    sample_ids: Tensor
    """[n] int64 of the kept samples; rows beyond n only keep ranks in step."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and tokens, (B, S)."""
        rows_BS = next(iter(self.inputs.values())) if self.labels_BS is None else self.labels_BS
        return int(rows_BS.shape[0]), int(rows_BS.shape[1])

    def inputs_on(self, device: torch.device) -> dict[str, Tensor]:
        """The inputs, on a device; it does not wait for them."""
        return {key: tensor.to(device, non_blocking=True) for key, tensor in self.inputs.items()}

    def selection_on(self, device: torch.device) -> TokenSelection:
        """Its tokens, on a device; it does not wait for them."""
        rows, length = self.shape
        return TokenSelection.of_batch(
            rows=rows,
            length=length,
            labels_BS=None if self.labels_BS is None else self.labels_BS.to(device, non_blocking=True),
            attention_mask_BS=None if self.mask_BS is None else self.mask_BS.to(device, non_blocking=True),
            shift_labels=self.shift_labels,
            device=device,
        )


def shard(probe: Probe, rank: int, world_size: int, device: torch.device) -> list[ProbeBatch]:
    """A rank's share of the probe, in host memory.

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
    any_NS = next(iter(group.inputs.values())) if group.labels is None else group.labels
    batch_size = probe.batch_size or max(1, _TOKENS // int(any_NS.shape[1]))
    for start in range(0, share, batch_size):
        slots = torch.arange(start, min(start + batch_size, share)) * world_size + rank
        kept = slots[slots < total]
        rows = torch.where(slots < total, slots, 0)
        yield ProbeBatch(
            group=name,
            inputs={key: _waiting(tensor, rows, device) for key, tensor in group.inputs.items()},
            labels_BS=None if group.labels is None else _waiting(group.labels, rows, device),
            mask_BS=None if group.attention_mask is None else _waiting(group.attention_mask, rows, device),
            shift_labels=probe.shift_labels,
            positions=kept,
            sample_ids=group.sample_ids.cpu()[kept],
        )


def _waiting(tensor: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """Rows of a tensor in host memory, pinned where a device is to copy them."""
    taken = tensor.cpu()[rows]
    return taken if device.type == "cpu" else taken.pin_memory()
