"""Thousands of ranks in a few processes (logical_ranks_main.py)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import logical_ranks_main
import numpy as np
from logical_ranks_main import EXPERTS, LAYERS

from pathwatch.v1 import run_pb2

PROCESSES = 2
PATIENCE_SECONDS = 120.0
CONFIG = run_pb2.RunConfig(
    topology=run_pb2.Topology(layers=LAYERS, experts=EXPERTS),
    mode=run_pb2.OBSERVATION_MODE_PROBE,
    grace_seconds=3600,
    keep_observations=True,
)


class LogicalRanks:
    """A context manager: a play begins when it is entered."""

    def __init__(
        self,
        folder: Path,
        addresses: Sequence[str],
        runs: Sequence[str],
        *,
        ranks: int,
        connections: int,
        pace: float,
    ) -> None:
        """`ranks` of each run; `connections` to each server, of all processes together."""
        share = ranks // PROCESSES
        assert share * PROCESSES == ranks
        self._orders = [
            {
                "addresses": list(addresses),
                "runs": list(runs),
                "ranks": [n * share, (n + 1) * share],
                "world_size": ranks,
                "connections": connections // PROCESSES,
                "pace": pace,
            }
            for n in range(PROCESSES)
        ]
        self._counters = [folder / f"acked-{n}" for n in range(PROCESSES)]
        self._acked_PR = [np.memmap(path, np.int64, "w+", shape=(len(runs),)) for path in self._counters]

    def __enter__(self) -> LogicalRanks:
        self._processes = [
            subprocess.Popen(
                [sys.executable, logical_ranks_main.__file__, str(counters)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for counters in self._counters
        ]
        for process, order in zip(self._processes, self._orders, strict=True):
            assert process.stdin is not None
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.communicate()

    def wait_acked(self, messages: float) -> None:
        """Until so many are acknowledged to all."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (acked := sum(int(acked_R.sum()) for acked_R in self._acked_PR)) < messages:
            assert time.monotonic() < deadline, f"{acked} of {messages} acknowledged"
            time.sleep(0.005)

    def finish(self) -> dict[str, int]:
        """Wait until all is acknowledged; what it took."""
        took: dict[str, int] = {}
        for process in self._processes:
            assert process.stdout is not None
            answer = process.stdout.readline()
            assert answer, "ranks have died"
            for name, count in json.loads(answer).items():
                took[name] = took.get(name, 0) + count
        return took
