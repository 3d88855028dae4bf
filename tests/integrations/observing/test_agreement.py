"""Ranks that agree, and one that goes: three real processes over gloo."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

WORLD = 3


@pytest.mark.slow
def test_a_rank_that_goes_lets_the_others_give_up_together(tmp_path: Path, start_ranks: Callable) -> None:
    script = Path(__file__).with_name("leaving_rank.py")
    ranks = start_ranks(script, lambda rank: [str(tmp_path / str(rank))], WORLD)
    logs = [process.communicate(timeout=240)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0, -9], logs
    for rank in range(2):
        for heard in json.loads((tmp_path / str(rank)).read_text()):
            assert heard["agreed"] == [20, 21, 22]
            assert heard["total"] == [3, 3]
            assert heard["largest"] == 2
            assert heard["first"] == 7
            assert heard["texts"] == ["größte", "", None]
            assert heard["gave_up"] == [True, True]
            assert heard["alone"] == [3, True]
            # Not the half hour that the group would wait for a rank that only is late.
            assert heard["seconds"] < 300
        # Once when it closed, once when it was killed.
        assert logs[rank].count("cannot agree any more") == 2
