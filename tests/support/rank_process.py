"""Training ranks in processes of their own (rank_main.py), as they are in a job."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rank_main
from rank_messages import RANKS


class RankProcesses:
    """A context manager: all ranks run while it is open, and end with it."""

    def __init__(self, folder: Path) -> None:
        file = folder / "acked"
        counters = np.memmap(file, np.int64, "w+", shape=(RANKS + 1,))
        self._acked_R, self._until = counters[:RANKS], counters[RANKS:]
        self.hold(None)
        self._processes = [
            subprocess.Popen(
                [sys.executable, rank_main.__file__, str(rank), str(file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(RANKS)
        ]

    @property
    def acked(self) -> int:
        """Messages acknowledged to all ranks so far."""
        return int(self._acked_R.sum())

    def hold(self, messages: float | None) -> None:
        """Have no more sent once so many are acknowledged, but what is under way: so that there is something
        to come after a fault, however slow the test is. None = hold nothing back any more."""
        self._until[:] = np.iinfo(np.int64).max if messages is None else int(messages)

    def play(
        self, address: str, plays: Sequence[dict[str, Any]], ranks: Sequence[int] = range(RANKS)
    ) -> list[dict[str, Any]]:
        """Have these ranks play at the same time (rank_main.Rank.play); what they say when all is acked."""
        return self._order({"address": address, "plays": list(plays)}, ranks)

    def close_streams(self) -> list[dict[str, Any]]:
        """Have all ranks close their streams."""
        return self._order({"close": True}, range(RANKS))

    def kill(self) -> None:
        """End all ranks: an order under way fails."""
        for process in self._processes:
            process.kill()

    def __enter__(self) -> RankProcesses:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        for process in self._processes:
            process.communicate()

    def _order(self, order: dict[str, Any], ranks: Sequence[int]) -> list[dict[str, Any]]:
        processes = [self._processes[rank] for rank in ranks]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        answers = []
        for process in processes:
            assert process.stdout is not None
            answer = process.stdout.readline()
            assert answer, "a rank has died"
            answers.append(json.loads(answer))
        return answers
