"""Samples of different lengths in one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def padded(sequences: Sequence[Tensor | Sequence[int]], value: int) -> Tensor:
    """[N, S] int64: N sequences, filled up behind with `value` to the length of the longest.

    Raises:
        ValueError: one of them is not one-dimensional or empty.
    """
    rows = [torch.as_tensor(sequence, dtype=torch.int64).cpu() for sequence in sequences]
    for place, row in enumerate(rows):
        if row.ndim != 1 or not len(row):
            raise ValueError(
                f"sample {place} has shape {tuple(row.shape)}: expected a sequence of tokens, at least one"
            )
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)
