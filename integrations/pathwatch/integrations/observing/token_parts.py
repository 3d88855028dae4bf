"""Sequence parallelism: of every sample a process reads its part of the tokens."""

from __future__ import annotations

import dataclasses
import inspect

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pathwatch.integrations.capture.tokens import IGNORED_LABEL
from pathwatch.integrations.observing.layout import Layout
from pathwatch.integrations.observing.probe_batches import ProbeBatch
from pathwatch.integrations.observing.stream import TrainingBatch


def readable(batch: TrainingBatch | None, layout: Layout) -> TrainingBatch | None:
    """The batch given, if it can be put together from what each process sees of it.

    Raises:
        ValueError: what was told of it holds of whole samples only.
    """
    if batch is None or layout.token_parts == 1:
        return batch
    if batch.selection.shifted:
        raise ValueError(
            "the tokens of a sample are split over ranks, and its labels with them: what the last token of a "
            "part predicts is on the next rank. Shift labels before they are split, and say "
            "Stream(shift_labels=False), or give forward shift_labels"
        )
    if len(batch.groups) > len(batch.selection.real_BMS):
        raise ValueError(
            "packed rows are split over ranks, which cannot number the samples of a row: they are not read"
        )
    return batch


def own_tokens(batch: ProbeBatch, layout: Layout, module: nn.Module, batch_size: int | None) -> ProbeBatch:
    """The part of a probe batch that this process runs: consecutive tokens, by its place in its group.

    Inputs that run over the tokens, [n, S, …], are cut; others are given to every process as they are. A
    batch of fewer rows than the others repeats its first: Ulysses attention takes one number of rows only.

    Raises:
        ValueError: tokens that cannot be dealt out evenly; a model that would count positions anew in each
            part.
    """
    parts = layout.token_parts
    if parts == 1:
        return batch
    if batch_size is None:
        raise ValueError(
            "sequence parallelism needs Probe(batch_size=...): the micro-batch size of its attention"
        )
    B, S = batch.shape
    if S % parts:
        raise ValueError(
            f"probe group {batch.group!r}: {S} tokens a sample cannot be dealt out to {parts} "
            "sequence-parallel ranks; pad them to a multiple"
        )
    if "position_ids" in inspect.signature(module.forward).parameters and "position_ids" not in batch.inputs:
        raise ValueError(
            f"probe group {batch.group!r}: with sequence parallelism its inputs need position_ids [N, S], "
            f"0 … {S - 1}: every rank would begin at 0 with its part of the tokens"
        )
    size = S // parts
    first = layout.token_part * size

    rows = torch.arange(batch_size).where(torch.arange(batch_size) < B, 0)

    def cut(tensor: Tensor) -> Tensor:
        part = tensor[rows] if len(tensor) == B else tensor
        if tensor.ndim > 1 and tensor.shape[1] == S:
            part = part[:, first : first + size].contiguous()
        return part.pin_memory() if tensor.is_pinned() else part

    labels_BS = batch.labels_BS
    if labels_BS is not None and batch.shift_labels:
        # Before the cut: the last token of a part predicts the first of the next.
        labels_BS = pad(labels_BS, (0, 1), value=IGNORED_LABEL)[:, 1:]
    return dataclasses.replace(
        batch,
        inputs={name: cut(tensor) for name, tensor in batch.inputs.items()},
        labels_BS=None if labels_BS is None else cut(labels_BS),
        mask_BS=None if batch.mask_BS is None else cut(batch.mask_BS),
        shift_labels=False,
    )
