"""Sequence parallelism in probe mode: of every probe sample a process reads its part of the tokens."""

from __future__ import annotations

import dataclasses
import inspect

from torch import Tensor, nn
from torch.nn.functional import pad

from pathwatch.integrations.capture.tokens import IGNORED_LABEL
from pathwatch.integrations.observing.layout import Layout
from pathwatch.integrations.observing.probe_batches import ProbeBatch


def own_tokens(batch: ProbeBatch, layout: Layout, module: nn.Module) -> ProbeBatch:
    """The part of a probe batch that this process runs: consecutive tokens, by its place in its group.

    Inputs that run over the tokens, [n, S, …], are cut; others are given to every process as they are.

    Raises:
        ValueError: tokens that cannot be dealt out evenly; a model that would count positions anew in each
            part.
    """
    parts = layout.token_parts
    if parts == 1:
        return batch
    _, S = batch.shape
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

    def cut(tensor: Tensor) -> Tensor:
        if tensor.ndim < 2 or tensor.shape[1] != S:
            return tensor
        part = tensor[:, first : first + size].contiguous()
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
