"""One of eight training ranks as a process: plays recorded runs (trace_load.py) over real `RoutingStream`s.

    python trace_rank_main.py RANK COUNTERS

Each line of stdin, `{"address", "seed", "pace"}`, is a whole play: all runs side by side, a step each `pace`
seconds at most, until all is acknowledged; answered by a line on stdout. COUNTERS is a file of int64
[RANKS + 1, runs]: messages acknowledged so far in this play, and in the last row how many steps may be sent.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stream_report import report_of
from trace_load import RANKS, RUNS, STOPPED, STOPPED_AT, send_step, trace_of

from pathwatch.client import RoutingStream
from pathwatch.v1 import signal_pb2

AHEAD_BYTES = 256 << 10
"""A rank runs no further ahead of its acknowledgements: so that every fault finds some sent, some to come."""
PATIENCE_SECONDS = 240.0


class Play:
    """All runs of one rank, from the first step to the last acknowledgement."""

    def __init__(
        self, rank: int, acked_R: NDArray[np.int64], until_R: NDArray[np.int64], address: str, seed: int
    ) -> None:
        self._rank, self._seed = rank, seed
        self._acked_R, self._until_R = acked_R, until_R
        self._streams = {
            run: RoutingStream(address, run=run, rank=rank, world_size=RANKS, watch=run == STOPPED)
            for run in RUNS
        }
        self._deadline = time.monotonic() + PATIENCE_SECONDS

    def play(self, pace: float) -> dict[str, Any]:
        """What became of it."""
        for index in range(max(len(trace_of(run).steps_T) for run in RUNS)):
            began = time.monotonic()
            for place, (run, stream) in enumerate(self._streams.items()):
                if index < len(trace_of(run).steps_T):
                    while self._until_R[place] <= index:
                        self._note()
                        time.sleep(0.005)
                    send_step(stream, run, index, self._rank, self._seed)
            while (
                time.monotonic() < began + pace
                or self._ahead()
                or (index == STOPPED_AT and not self._is_stopped())
            ):
                self._note()
                time.sleep(0.005)
        for stream in self._streams.values():
            while not stream.flush(0.02) and time.monotonic() < self._deadline:
                self._note()
        self._note()
        for stream in self._streams.values():
            stream.close()
        return report_of(self._streams.values())

    def _ahead(self) -> bool:
        return (
            any(stream.stats.buffered_bytes > AHEAD_BYTES for stream in self._streams.values())
            and time.monotonic() < self._deadline
        )

    def _is_stopped(self) -> bool:
        signal = self._streams[STOPPED].signal
        return (
            signal is not None and signal.action == signal_pb2.ACTION_STOP
        ) or time.monotonic() > self._deadline

    def _note(self) -> None:
        self._acked_R[:] = [stream.stats.acked for stream in self._streams.values()]


def main() -> None:
    """Obey stdin until it ends."""
    rank = int(sys.argv[1])
    counters = np.memmap(sys.argv[2], np.int64, "r+", shape=(RANKS + 1, len(RUNS)))
    for run in RUNS:
        trace_of(run)
    for line in sys.stdin:
        order = json.loads(line)
        play = Play(rank, counters[rank], counters[RANKS], order["address"], order["seed"])
        print(json.dumps(play.play(order["pace"])), flush=True)


if __name__ == "__main__":
    main()
