"""Ids of samples from their tokens."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.integrations.capture import (
    Recording,
    TokenSelection,
    content_ids,
    reduce_reading,
)
from pathwatch.integrations.observing.host_reading import unpack

TOKENS = st.lists(st.integers(0, 200_000), min_size=1, max_size=8)


def id_of(tokens: list[int], left: int = 0, right: int = 0, pad: int = 0) -> int:
    row = torch.tensor([[pad] * left + tokens + [pad] * right])
    mask = torch.tensor([[0] * left + [1] * len(tokens) + [0] * right])
    real = TokenSelection.of_batch(rows=1, length=row.shape[1], attention_mask_BS=mask).real_BMS
    return int(content_ids(row, real))


@given(tokens=TOKENS, left=st.integers(0, 3), right=st.integers(0, 3), pad=st.integers(0, 9), other=TOKENS)
def test_ids_tell_contents_apart_and_nothing_else(
    tokens: list[int], left: int, right: int, pad: int, other: list[int]
) -> None:
    own = id_of(tokens)
    assert 0 <= own < 1 << 63
    assert id_of(tokens, left, right, pad) == own
    assert (id_of(other) == own) == (other == tokens)
    if tokens != tokens[::-1]:
        assert id_of(tokens[::-1]) != own


@given(first=TOKENS, second=TOKENS)
def test_a_packed_sample_has_the_id_it_has_alone(first: list[int], second: list[int]) -> None:
    segments = torch.tensor([[1] * len(first) + [2] * len(second)])
    selection = TokenSelection.of_batch(
        rows=1, length=segments.shape[1], segment_ids_BS=segments, samples_per_row=2
    )
    ids = content_ids(torch.tensor([first + second]), selection.real_BMS)
    assert ids.tolist() == [[id_of(first), id_of(second)]]


def test_ids_have_the_value_that_their_rule_says() -> None:
    """The rule in plain integers: a run that goes on elsewhere must find the same ids."""

    def mix(x: int) -> int:
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            x = (x ^ (x >> shift)) * factor % (1 << 64)
        return x

    tokens = [7, 50_000, 7, 0]
    total = sum(
        mix((token * 0x9E3779B97F4A7C15 + place * 0xC2B2AE3D27D4EB4F) % (1 << 64))
        for place, token in enumerate(tokens, 1)
    )
    assert id_of(tokens) == total % (1 << 63)


@given(ids=st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=2, max_size=2))
def test_ids_come_to_the_host_whole(ids: list[int]) -> None:
    recording = Recording(TokenSelection.of_batch(rows=2, length=3), [None], [None])
    recording.take(0, torch.full((6, 4), 0.25))
    reading = reduce_reading(recording, None, sample_ids_BM=torch.tensor(ids)[:, None])
    arrays = unpack(reading, reading.packed_NX.numpy())
    assert arrays.sample_ids_N is not None
    assert arrays.sample_ids_N.tolist() == ids
    assert arrays.weights_NLK.tolist() == [[[0.25] * 4]] * 2
