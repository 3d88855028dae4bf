"""DDP under the other Lightning, `pytorch_lightning`, on two real processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
def test_two_ranks_stop_at_the_same_step(
    run_two_ranks: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    ranks = run_two_ranks(Path(__file__).with_name("two_ranks.py"))
    first, second = ranks
    for rank, seen in enumerate(ranks):
        assert seen["flavour"] == ["pytorch_lightning"]
        assert seen["watched"] == seen["plain"], "bit for bit"
        assert seen["stopped_at"] == 15
        assert seen["watermarks"] == [0, 5, 10, 15]
        assert seen["settings"] == {"rank": rank, "world_size": 2, "watch": rank == 0}
    assert first["watched"] != second["watched"]
    assert sorted(first["sample_ids"] + second["sample_ids"]) == list(range(7))
    saved = tmp_path / "saved"
    steps = [step for step, _ in first["checkpoints"]]
    # Asked for, ModelCheckpoint's own, the last one.
    assert 0 < steps[0] <= 6
    assert steps[1:] == [10, 15]
    assert {Path(tag) for _, tag in first["checkpoints"]} == set(saved.iterdir())
    assert not second["checkpoints"], "rank 0 tells of them"
