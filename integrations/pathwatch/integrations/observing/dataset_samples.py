"""Training samples out of a map-style dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

Tokens: TypeAlias = Tensor | Sequence[int]


class MapDataset(Protocol):
    """A dataset with a length that gives a sample by its index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> object: ...


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample's tokens; all of one length."""

    tokens: Tensor
    labels: Tensor
    """What is to be predicted; in padding nothing is."""
    mask: Tensor
    """0 = padding."""


def read_samples(dataset: MapDataset, indices: Iterable[int], name: str) -> list[Sample]:
    """Samples by index: items are sequences of tokens, or mappings that hold one under `name`.

    A mapping's `attention_mask` and `labels` are used; without labels the tokens are to be predicted.

    Raises:
        ValueError: an item is something else.
    """
    return [_sample(dataset[index], index, name) for index in indices]


def _sample(item: object, index: int, name: str) -> Sample:
    fields = item if isinstance(item, Mapping) else {name: item}
    try:
        tokens = _row(fields[name])
        mask = _row(fields["attention_mask"]) if "attention_mask" in fields else torch.ones_like(tokens)
        labels = _row(fields["labels"]) if "labels" in fields else tokens
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"sample {index} of the dataset is not a sequence of tokens, nor holds one under {name!r}: "
            f"{type(item).__name__}; make the probe of ProbeGroup instead"
        ) from error
    if not tokens.shape == labels.shape == mask.shape:
        raise ValueError(
            f"sample {index} of the dataset has {len(tokens)} tokens, {len(labels)} labels and an attention "
            f"mask of {len(mask)}: expected as many of each"
        )
    return Sample(tokens, labels, mask)


def _row(values: object) -> Tensor:
    row = torch.as_tensor(values, dtype=torch.int64).cpu()
    if row.ndim != 1:
        raise ValueError(f"expected one dimension, got {row.ndim}")
    return row
