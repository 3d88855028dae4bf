"""Packed rows: from positions and offsets to segment ids."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.integrations.capture import (
    TokenSelection,
    segment_ids_of_offsets,
    segment_ids_of_positions,
)

LENGTHS = st.lists(st.integers(1, 5), min_size=1, max_size=6)


@given(lengths=LENGTHS, left=st.integers(0, 3), right=st.integers(0, 3), pad=st.integers(0, 2))
def test_positions_that_begin_anew_begin_a_sample(
    lengths: list[int], left: int, right: int, pad: int
) -> None:
    """Padding on either side, whatever positions it is given."""
    positions = [pad] * left + [p for n in lengths for p in range(n)] + [pad] * right
    mask = [0] * left + [1] * sum(lengths) + [0] * right
    expected = [0] * left + [i + 1 for i, n in enumerate(lengths) for _ in range(n)] + [0] * right
    found = segment_ids_of_positions(torch.tensor([positions]), torch.tensor([mask]))
    assert found.tolist() == [expected]


@given(first=st.integers(1, 9), length=st.integers(1, 6))
def test_a_row_may_begin_within_a_sample(first: int, length: int) -> None:
    positions = torch.arange(first, first + length)[None]
    assert segment_ids_of_positions(positions, None).tolist() == [[1] * length]


@given(lengths=LENGTHS, rest=st.integers(0, 3))
def test_offsets(lengths: list[int], rest: int) -> None:
    offsets = torch.tensor([0, *lengths]).cumsum(0).int()
    expected = [i + 1 for i, n in enumerate(lengths) for _ in range(n)] + [0] * rest
    assert segment_ids_of_offsets(offsets, sum(lengths) + rest).tolist() == [expected]


def test_samples_beyond_those_told_are_counted() -> None:
    positions = torch.tensor([[0, 1, 2, 3, 4], [0, 1, 0, 0, 1]])
    selection = TokenSelection.of_batch(
        rows=2, length=5, segment_ids_BS=segment_ids_of_positions(positions, None), samples_per_row=2
    )
    assert selection.surplus_B is not None
    assert selection.surplus_B.tolist() == [0, 1]
    assert selection.real_BMS.sum(-1).tolist() == [[5, 0], [2, 1]]
