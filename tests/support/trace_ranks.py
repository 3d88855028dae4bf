"""Eight training ranks in processes of their own (trace_rank_main.py) that play recorded runs together."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import trace_rank_main
from stream_report import check_nothing_lost
from trace_load import RANKS, RUNS, trace_of

PACE_SECONDS = 0.1
"""Between steps, as training would take: so that a fault finds some sent, some acknowledged, some to come."""
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Undisturbed:
    """What one server with a data folder made of a play, to which nothing happened."""

    said: Mapping[str, bytes]
    """`job.outcome`: every window, signal, ranking and kept observation."""
    acked: Mapping[str, int]
    """Messages acknowledged, by run."""


class TraceRanks:
    """A context manager: the ranks run while it is open, one play after the other."""

    def __init__(self, folder: Path) -> None:
        self._counters = folder / "counters"
        counters = np.memmap(self._counters, np.int64, "w+", shape=(RANKS + 1, len(RUNS)))
        self._acked_NR, self._until_R = counters[:RANKS], counters[RANKS]
        self.log = folder / "log"
        """What all have warned of."""
        self._start()

    def _start(self) -> None:
        self._playing = False
        with self.log.open("w") as log:
            self._processes = [
                subprocess.Popen(
                    [sys.executable, trace_rank_main.__file__, str(rank), str(self._counters)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
                for rank in range(RANKS)
            ]

    def begin(self, addresses: list[str], hold: Mapping[str, float] | None = None) -> None:
        """Have all ranks play; rank n is given address n, in turn.

        Of a run to `hold` they send no more than this share of the steps until it is let on, however slow
        the test is: so that there is something to come after its fault. Other runs wait for it meanwhile.
        """
        if self._playing:  # a test has failed: what is left of its play is nobody's any more
            self._end()
            self._start()
        self._playing = True
        self._acked_NR[:] = 0
        self._until_R[:] = [int(len(trace_of(run).steps_T) * (hold or {}).get(run, 1)) for run in RUNS]
        for rank, process in enumerate(self._processes):
            order = {"address": addresses[rank % len(addresses)], "seed": 0, "pace": PACE_SECONDS}
            assert process.stdin is not None
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()

    def let_on(self, run: str, share: float = 1) -> None:
        """Hold this run no longer, or from this share of its steps on."""
        self._until_R[list(RUNS).index(run)] = int(len(trace_of(run).steps_T) * share)

    def finish(self) -> list[dict[str, Any]]:
        """Wait until all is acknowledged to all ranks; what they say. Nothing was dropped or refused."""
        reports = []
        for process in self._processes:
            assert process.stdout is not None
            answer = process.stdout.readline()
            assert answer, f"a rank has died: {self.log.read_text()[-3000:]}"
            reports.append(json.loads(answer))
        self._playing = False
        check_nothing_lost(reports)
        return reports

    def acked(self, *runs: str) -> int:
        """Messages of these runs, or of all, acknowledged so far in this play."""
        chosen = [place for place, run in enumerate(RUNS) if not runs or run in runs]
        return int(self._acked_NR[:, chosen].sum())

    def wait_acked(self, messages: float, *runs: str) -> None:
        """Until so many messages of these runs, or of all, are acknowledged."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.acked(*runs) < messages:
            assert time.monotonic() < deadline, f"{self.acked(*runs)} of {messages} acknowledged"
            time.sleep(0.002)

    def __enter__(self) -> TraceRanks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.communicate()
