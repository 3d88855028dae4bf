"""A probe leaves no trace in training: two ranks of DeepSpeed, each ZeRO stage, precisions, checkpointing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.slow
def test_training_with_and_without_a_probe_is_bit_identical(run_two_ranks: Callable) -> None:
    """Losses, weights, optimizer, random numbers, buffers and what modules keep of their last pass."""
    ranks = run_two_ranks(Path(__file__).with_name("two_ranks.py"))
    for mode, own in ranks[0].items():
        other = ranks[1][mode]
        assert own["watched"] == own["plain"], mode
        assert other["watched"] == other["plain"], mode
        assert own["plain"]["losses"] != other["plain"]["losses"], "ranks train on samples of their own"
        for step in (0, 2):
            read = [
                ids for rank in (own, other) for at, some in rank["observed"] if at == step for ids in some
            ]
            assert sorted(read) == list(range(7)), f"{mode}: every sample once, by one of the ranks"
