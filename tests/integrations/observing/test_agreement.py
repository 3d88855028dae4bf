"""Ranks that agree, and one that goes: three real processes over gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WORLD = 3


def run_ranks(tmp_path: Path, port: int, how: str) -> list[tuple[dict[str, Any] | None, str]]:
    """What each rank heard, None where it was killed, and what it logged."""
    ranks = [
        subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("leaving_rank.py")),
                str(tmp_path / str(rank)),
                how,
            ],
            env={
                **os.environ,
                "RANK": str(rank),
                "WORLD_SIZE": str(WORLD),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(WORLD)
    ]
    logs = [process.communicate(timeout=120)[1] for process in ranks]
    heard = []
    for rank, (process, log) in enumerate(zip(ranks, logs, strict=True)):
        killed = how == "killed" and rank == 2
        assert process.returncode == (-9 if killed else 0), log[-2000:]
        heard.append((None if killed else json.loads((tmp_path / str(rank)).read_text()), log))
    return heard


@pytest.mark.slow
@pytest.mark.parametrize("how", ["closed", "killed"])
def test_a_rank_that_goes_lets_the_others_give_up_together(tmp_path: Path, free_port: int, how: str) -> None:
    ranks = run_ranks(tmp_path, free_port, how)
    for heard, log in ranks[:2]:
        assert heard is not None
        assert heard["agreed"] == [20, 21, 22]
        assert heard["total"] == [3, 3]
        assert heard["largest"] == 2
        assert heard["first"] == 7
        assert heard["texts"] == ["größte", "", None]
        assert heard["gave_up"] == [True, True]
        assert heard["alone"] == [3, True]
        # Far below the half hour that the group would wait for one that only is late.
        assert heard["seconds"] < 60
        assert heard.get("job") == (3.0 if how == "closed" else None)
        assert log.count("cannot agree any more") == 1
