"""Stream mode: the samples that training happens to see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from pathwatch.integrations.capture import TokenSelection, content_ids, segment_ids_of_positions

Groups: TypeAlias = str | Sequence[str | None]
SampleIds: TypeAlias = Tensor | Sequence[int]
Inputs: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Observe training batches as they come.

    With `groups` the batches describe themselves: labels, padding and packing are taken from the inputs of
    the model's forward by their usual names (docs/stream.md). Without, the job tells each by `Watch.batch`.
    """

    window_steps: int
    """Optimizer steps whose samples are judged together."""
    interval: int = 10
    """Every how many optimizer steps one is observed, with all its micro-batches; at least one a window."""
    groups: Callable[[Inputs], Groups] | str | None = None
    """Data group of each sample: computed from the forward's inputs by name, on the host; or the name of an
    extra keyword of forward that holds them, which the model does not get to see."""
    sample_ids: Callable[[Inputs], SampleIds] | str | None = None
    """Stable id of each sample within its group, in the same two ways; None = a hash of its tokens."""
    samples_per_row: int = 1
    """Packed sequences: the most samples a row holds, where neither groups nor ids come one for each."""
    uncompiled: bool = False
    """True: run observed forward passes without `torch.compile`, which hides from us what it compiled."""
    shift_labels: bool = True
    """True: the label at t + 1 is predicted at token t, as in transformers. False: at token t + 1 itself."""

    def __post_init__(self) -> None:
        for name in ("window_steps", "interval", "samples_per_row"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.groups is None and self.sample_ids is not None:
            raise ValueError("Stream(sample_ids=...) needs groups=; without, tell both to Watch.batch")

    def observes(self, step: int) -> bool:
        """Whether the forward passes after `step` optimizer steps are observed."""
        return step % min(self.interval, self.window_steps) == 0

    @property
    def own_keywords(self) -> tuple[str, ...]:
        """Keywords of forward that the model does not get to see."""
        return tuple(name for name in (self.groups, self.sample_ids) if isinstance(name, str))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingBatch:
    """What was told of a batch that is trained on; N = rows · samples per row."""

    groups: tuple[str | None, ...]
    """[N] group of each sample; None where a packed row holds fewer samples."""
    sample_ids: Tensor
    """[N] int64; not read here where they are on a device."""
    ids_on_device: bool
    """The ids are not known on the host: they were computed from the samples' tokens, or told so."""
    visits: Tensor | None
    """[N] int32: how often each was trained on before."""
    selection: TokenSelection


def describe(
    stream: Stream,
    *,
    groups: Groups,
    sample_ids: SampleIds | None,
    shape: tuple[int, int],
    device: torch.device,
    samples_per_row: int | None = None,
    tokens: Tensor | None = None,
    labels: Tensor | None = None,
    shifted_labels: Tensor | None = None,
    attention_mask: Tensor | None = None,
    segment_ids: Tensor | None = None,
    position_ids: Tensor | None = None,
    visits: Tensor | Sequence[int] | None = None,
) -> TrainingBatch:
    """The batch as the recorder needs it; nothing is read from the device.

    Args:
        groups: of each sample, of each row, or one for all.
        sample_ids: of each sample; None = hashed from `tokens`.
        shape: (B, S).
        samples_per_row: M where it is known; None = by the number of ids or groups, else of the stream.
        labels: as the stream's `shift_labels` says.
        shifted_labels: where they are predicted already.
        position_ids: begin at 0 with every sample; used where there are no segment ids.

    Raises:
        ValueError: numbers of rows, samples and groups do not fit together.
    """
    rows, length = shape
    ids = None if sample_ids is None else torch.as_tensor(sample_ids, dtype=torch.int64).reshape(-1)
    if samples_per_row is None:
        samples_per_row = _samples_per_row(stream, rows, groups, ids)
    N = rows * samples_per_row
    names = _names(groups, rows, samples_per_row)
    if len(names) != N or (ids is not None and len(ids) != N):
        told = "no" if ids is None else len(ids)
        raise ValueError(
            f"a batch of {rows} rows came with {told} sample ids and {len(names)} groups: give one each per "
            "row, or, where rows are packed, as many for every row (group None where a row has fewer samples)"
        )
    if visits is not None and len(visits) != N:
        raise ValueError(f"a batch of {N} samples came with {len(visits)} visits: give one for each")
    if samples_per_row > 1 and segment_ids is None and position_ids is None:
        raise ValueError(
            f"a batch of {rows} rows came with {samples_per_row} samples each, but with neither segment_ids "
            "nor position_ids that say which tokens are whose"
        )

    def here(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device, non_blocking=True)

    mask_BS, segment_ids_BS, position_ids_BS = here(attention_mask), here(segment_ids), here(position_ids)
    if segment_ids_BS is None and position_ids_BS is not None:
        segment_ids_BS = segment_ids_of_positions(position_ids_BS, mask_BS)
    selection = TokenSelection.of_batch(
        rows=rows,
        length=length,
        labels_BS=here(labels if shifted_labels is None else shifted_labels),
        attention_mask_BS=mask_BS,
        segment_ids_BS=segment_ids_BS,
        samples_per_row=samples_per_row,
        shift_labels=stream.shift_labels and shifted_labels is None,
        device=device,
    )
    if ids is None:
        tokens_BS = here(tokens)
        if tokens_BS is None:
            raise ValueError("the batch has no token ids to tell samples by: give Stream(sample_ids=...)")
        ids = content_ids(tokens_BS, selection.real_BMS).reshape(-1)
    return TrainingBatch(
        groups=names,
        sample_ids=ids,
        ids_on_device=sample_ids is None or ids.device.type != "cpu",
        visits=None if visits is None else torch.as_tensor(visits, dtype=torch.int32).reshape(-1),
        selection=selection,
    )


def _samples_per_row(stream: Stream, rows: int, groups: Groups, ids: Tensor | None) -> int:
    """M: as the ids or groups are as many, else as the stream says."""
    told = len(ids) if ids is not None else 0 if isinstance(groups, str) else len(groups)
    return told // rows if told > rows and told % rows == 0 else stream.samples_per_row


def _names(groups: Groups, rows: int, samples_per_row: int) -> tuple[str | None, ...]:
    if isinstance(groups, str):
        return (groups,) * (rows * samples_per_row)
    if len(groups) == rows:
        return tuple(name for name in groups for _ in range(samples_per_row))
    return tuple(groups)
