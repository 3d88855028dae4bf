"""The parts that sequence-parallel ranks read of a probe make up the whole probe."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pathwatch.integrations.capture import TokenSelection
from pathwatch.integrations.observing import Layout, Probe, ProbeGroup, Stream
from pathwatch.integrations.observing.probe_batches import ProbeBatch, shard
from pathwatch.integrations.observing.stream import TrainingBatch, describe
from pathwatch.integrations.observing.token_parts import own_tokens, readable

CPU = torch.device("cpu")


class Model(nn.Module):
    def forward(self, input_ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
        return input_ids


def parts_of(
    batch: ProbeBatch, parts: int, batch_size: int | None = 4, module: nn.Module | None = None
) -> list[ProbeBatch]:
    return [
        own_tokens(batch, Layout(token_part=part, token_parts=parts), module or Model(), batch_size)
        for part in range(parts)
    ]


def whole_batch(
    rows: int, length: int, seed: int, *, shift: bool = True, positions: bool = True
) -> ProbeBatch:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(9, (rows, length), generator=generator)
    inputs = {"input_ids": tokens, "weights": torch.rand(rows, generator=generator)}
    if positions:
        inputs["position_ids"] = torch.arange(length).expand(rows, length)
    group = ProbeGroup(
        inputs=inputs,
        sample_ids=torch.arange(rows),
        labels=tokens.masked_fill(torch.rand(rows, length, generator=generator) < 0.3, -100),
        attention_mask=torch.randint(2, (rows, length), generator=generator),
    )
    [batch] = shard(Probe(groups={"a": group}, batch_size=4, shift_labels=shift), 0, 1, CPU)
    return batch


@given(
    rows=st.integers(1, 4),
    parts=st.sampled_from([2, 3]),
    size=st.integers(1, 3),
    seed=st.integers(0, 99),
    shift=st.booleans(),
)
def test_parts_of_all_ranks_side_by_side_are_the_batch(
    rows: int, parts: int, size: int, seed: int, shift: bool
) -> None:
    batch = whole_batch(rows, parts * size, seed, shift=shift)
    expected = batch.selection_on(CPU)
    split = parts_of(batch, parts)
    selections = [part.selection_on(CPU) for part in split]
    for name in ("real_BMS", "target_BMS", "labels_BS"):
        joined = torch.cat([getattr(selection, name)[:rows] for selection in selections], dim=-1)
        assert torch.equal(joined, getattr(expected, name)), name
    for name in ("input_ids", "position_ids"):
        assert torch.equal(torch.cat([part.inputs[name][:rows] for part in split], dim=1), batch.inputs[name])
    for part in split:
        # Attention takes one number of rows; those too many are not kept.
        assert part.shape == (4, size)
        assert torch.equal(part.inputs["weights"][:rows], batch.inputs["weights"])
        assert part.sample_ids.tolist() == list(range(rows))


def test_a_job_that_splits_no_tokens_reads_its_batches_as_they_are() -> None:
    batch = whole_batch(3, 6, 0)
    assert own_tokens(batch, Layout(), Model(), None) is batch


@pytest.mark.parametrize(
    ("length", "positions", "batch_size", "message"),
    [
        (7, True, 4, "7 tokens a sample cannot be dealt out to 2"),
        (6, False, 4, "need position_ids"),
        (6, True, None, r"needs Probe\(batch_size"),
    ],
)
def test_a_probe_that_cannot_be_split_is_refused(
    length: int, positions: bool, batch_size: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        parts_of(whole_batch(3, length, 0, positions=positions), 2, batch_size)


def batch_of(*, shift: bool, samples: int = 2, **tokens: Tensor) -> TrainingBatch:
    return describe(
        Stream(window_steps=1, shift_labels=shift),
        groups="a",
        sample_ids=list(range(samples)),
        shape=(2, 4),
        device=CPU,
        **tokens,
    )


def test_labels_shifted_after_the_split_and_packed_rows_are_refused() -> None:
    part, labels = Layout(token_part=1, token_parts=2), torch.ones(2, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="Shift labels before they are split"):
        readable(batch_of(shift=True, labels=labels), part)
    packed = torch.tensor([[1, 1, 2, 2]] * 2)
    with pytest.raises(ValueError, match="packed rows"):
        readable(batch_of(shift=False, samples=4, segment_ids=packed), part)
    for fine in (
        batch_of(shift=False, labels=labels),
        batch_of(shift=True),
        batch_of(shift=True, shifted_labels=labels),
    ):
        assert readable(fine, part) is fine
    whole = batch_of(shift=True, labels=labels)
    assert readable(whole, Layout()) is whole
    assert isinstance(whole.selection, TokenSelection)
