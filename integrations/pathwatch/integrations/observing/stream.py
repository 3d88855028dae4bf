"""Stream mode: the samples that training happens to see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pathwatch.integrations.capture import TokenSelection


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Observe training batches as they come."""

    window_steps: int
    """Optimizer steps whose samples are judged together."""
    shift_labels: bool = True
    """True: the label at t + 1 is predicted at token t, as in transformers. False: at token t + 1 itself."""

    def __post_init__(self) -> None:
        if self.window_steps < 1:
            raise ValueError(f"window_steps must be at least 1, got {self.window_steps}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingBatch:
    """What the job told of the batch about to be trained on; N = rows · samples per row."""

    groups: tuple[str | None, ...]
    """[N] group of each sample; None where a packed row holds fewer samples."""
    sample_ids: Tensor
    """[N] int64."""
    visits: Tensor | None
    """[N] int32: how often each was trained on before."""
    selection: TokenSelection


def describe(
    stream: Stream,
    *,
    groups: str | Sequence[str | None],
    sample_ids: Tensor | Sequence[int],
    shape: tuple[int, int],
    labels: Tensor | None,
    attention_mask: Tensor | None,
    segment_ids: Tensor | None,
    visits: Tensor | Sequence[int] | None,
    device: torch.device,
) -> TrainingBatch:
    """The batch as the recorder needs it.

    Raises:
        ValueError: numbers of rows, samples and groups do not fit together.
    """
    rows, length = shape
    ids = torch.as_tensor(sample_ids, dtype=torch.int64).reshape(-1)
    names = (groups,) * len(ids) if isinstance(groups, str) else tuple(groups)
    if (
        not len(ids)
        or len(ids) % rows
        or len(names) != len(ids)
        or (segment_ids is None and len(ids) != rows)
    ):
        raise ValueError(
            f"a batch of {rows} rows came with {len(ids)} sample ids and {len(names)} groups: give one each "
            "per row, or, with segment_ids, as many for every row (group None where a row has fewer samples)"
        )
    selection = TokenSelection.of_batch(
        rows=rows,
        length=length,
        labels_BS=None if labels is None else labels.to(device),
        attention_mask_BS=None if attention_mask is None else attention_mask.to(device),
        segment_ids_BS=None if segment_ids is None else segment_ids.to(device),
        samples_per_row=len(ids) // rows,
        shift_labels=stream.shift_labels,
        device=device,
    )
    counted = None if visits is None else torch.as_tensor(visits, dtype=torch.int32).reshape(-1)
    return TrainingBatch(groups=names, sample_ids=ids, visits=counted, selection=selection)
