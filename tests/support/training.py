"""A training job, run as a process of its own: what it is told to do to its end, it says when it has trained.

Prints one line of JSON when the steps are over; whatever is said afterwards is about its end.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
import time
from typing import NoReturn

import numpy as np

from pathwatch.client import RoutingStream
from pathwatch.v1 import run_pb2

BUFFER = 1 << 20
STEPS = 300
"""At 8 kB each: more than the buffer holds."""
ENDINGS = ("return", "close", "exit", "raise", "sigterm", "sigterm handled", "daemon thread")
CODES = {"exit": 3, "raise": 1, "sigterm": -signal.SIGTERM, "sigterm handled": 7}
"""Exit codes other than 0."""


class RaisingHandler(logging.Handler):
    """A log handler that is broken."""

    def emit(self, record: logging.LogRecord) -> NoReturn:
        raise RuntimeError("this handler is broken")


def train(stream: RoutingStream, steps: int) -> float:
    """Seconds of the longest call."""
    weights_NLK = np.full((4, 16, 64), 1 / 64, np.float16)
    longest = 0.0
    for step in range(steps):
        started = time.perf_counter()
        stream.observe(step=step, group="math", sample_ids=np.arange(4), weights=weights_NLK)
        stream.watermark(step)
        longest = max(longest, time.perf_counter() - started)
        time.sleep(0.002)
    return longest


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("ending", choices=ENDINGS)
    parser.add_argument("--buffer", type=int, default=BUFFER)
    options = parser.parse_args()
    logging.getLogger("pathwatch").addHandler(RaisingHandler())
    logging.getLogger("pathwatch").propagate = False

    def surfaced(arguments: threading.ExceptHookArgs) -> None:
        print("SURFACED", arguments.exc_type, arguments.exc_value, file=sys.stderr, flush=True)

    threading.excepthook = surfaced
    if options.ending == "sigterm handled":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(CODES["sigterm handled"]))
    config = run_pb2.RunConfig(topology=run_pb2.Topology(layers=16, experts=64))
    stream = RoutingStream(
        options.address,
        run=options.ending.replace(" ", "-"),
        config=config,
        buffer_bytes=options.buffer,
        watch=True,
    )
    longest = train(stream, STEPS)
    stats = stream.stats
    told = {
        "longest": longest,
        "buffered": stats.buffered_bytes,
        "dropped_steps": stats.dropped_steps,
        "dropped_observations": stats.dropped_observations,
        "ended": time.time(),
    }
    print(json.dumps(told), flush=True)
    match options.ending:
        case "close":
            stream.close()
        case "exit":
            sys.exit(CODES["exit"])
        case "raise":
            raise KeyError("training broke")
        case "sigterm" | "sigterm handled":
            os.kill(os.getpid(), signal.SIGTERM)
        case "daemon thread":
            threading.Thread(target=train, args=(stream, 1 << 60), daemon=True).start()


if __name__ == "__main__":
    main()
