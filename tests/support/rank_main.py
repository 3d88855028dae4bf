"""One training rank as a process: plays what it is told on stdin, over real `RoutingStream`s.

    python rank_main.py RANK COUNTERS

Each line of stdin is a JSON object, answered by one on stdout when done: `{"address", "plays": [{"run",
"attempt", "first", "last"}]}` sends these steps of these runs side by side and waits until all is
acknowledged; `{"close": true}` closes all streams. COUNTERS is a file of int64, one per rank: messages
acknowledged so far; and one more: with so many acknowledged to all ranks together nothing more is sent.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import zip_longest
from typing import Any

import numpy as np
from rank_messages import CONFIGS, RANKS, send_step
from stream_report import report_of

from pathwatch.client import RoutingStream, reconnect

UNACKED = 24
"""Messages a rank runs ahead of its acknowledgements: so that every kill finds some sent, some to come."""
FLUSH_SECONDS = 240.0
QUIET_SECONDS = 1.0
"""Without an acknowledgement over connections that are there: then nothing is under way."""


class Rank:
    """The streams of one rank, kept from one command to the next."""

    def __init__(self, rank: int, counters: str) -> None:
        self._rank = rank
        self._counters = np.memmap(counters, np.int64, "r+", shape=(RANKS + 1,))
        self._streams: dict[tuple[str, str, int], RoutingStream] = {}
        self._open: list[RoutingStream] = []
        self._expected = 0

    def play(self, address: str, plays: list[dict[str, Any]]) -> dict[str, Any]:
        """Send the steps of all `plays` in turns, then wait for the last acknowledgement."""
        steps = [[(p["run"], p["attempt"], s) for s in range(p["first"], p["last"] + 1)] for p in plays]
        for turn in zip_longest(*steps):
            for run, attempt, step in filter(None, turn):
                self._hold_back()
                stream = self._stream(address, run, attempt)
                self._expected += send_step(stream, run, attempt, step, self._rank)
        deadline = time.monotonic() + FLUSH_SECONDS
        for stream in self._streams.values():
            while not stream.flush(0.01) and time.monotonic() < deadline:
                self._count()
        return self._report()

    def close(self) -> dict[str, Any]:
        """Close all streams; their counts are kept."""
        for stream in self._streams.values():
            stream.close()
        self._open.clear()
        return self._report()

    def _stream(self, address: str, run: str, attempt: int) -> RoutingStream:
        key = address, run, attempt
        if key not in self._streams:
            self._streams[key] = RoutingStream(
                address,
                run=run,
                attempt=attempt,
                rank=self._rank,
                world_size=RANKS,
                # One run is made by its ranks, the other by whoever starts them.
                config=CONFIGS[run] if run == "stream" else None,
            )
            self._open.append(self._streams[key])
        return self._streams[key]

    def _hold_back(self) -> None:
        deadline = time.monotonic() + FLUSH_SECONDS
        acked, since = -1, time.monotonic()
        while self._is_ahead() and time.monotonic() < deadline:
            time.sleep(0.002)
            connected = all(stream.stats.connected for stream in self._open)
            if not connected or self._count() != acked:
                acked, since = self._count(), time.monotonic()
            elif time.monotonic() - since > QUIET_SECONDS:
                # A stream that sends what it is asked for alone never sends the rest.
                self._expected = acked

    def _is_ahead(self) -> bool:
        is_ahead = self._expected - self._count() >= UNACKED
        return is_ahead or bool(self._counters[:RANKS].sum() >= self._counters[RANKS])

    def _count(self) -> int:
        acked = sum(stream.stats.acked for stream in self._streams.values())
        self._counters[self._rank] = acked
        return acked

    def _report(self) -> dict[str, Any]:
        self._count()
        return report_of(self._streams.values())


def main() -> None:
    """Obey stdin until it ends."""
    # A job waits up to half a minute between attempts: with a kill a second it would hardly meet the server.
    assert hasattr(reconnect, "_LONGEST_DELAY")
    reconnect._LONGEST_DELAY = reconnect._LONGEST_DELAY_REFUSED = 0.4
    rank = Rank(int(sys.argv[1]), sys.argv[2])
    for line in sys.stdin:
        order = json.loads(line)
        answer = rank.close() if order.get("close") else rank.play(order["address"], order["plays"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
