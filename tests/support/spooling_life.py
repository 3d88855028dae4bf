"""One life of a training job that spools, run as a process of its own.

Prints a line once everything it trained stands on disk or is delivered, then waits to be killed; told to end,
it delivers all and says what became of it.
"""

from __future__ import annotations

import argparse
import json
import time

from serving import CONFIG, train

from pathwatch.client import RoutingStream, Spool, buffer, reconnect

MEMORY = 512 << 10
"""Some seven steps."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("folder")
    parser.add_argument("first", type=int)
    parser.add_argument("end", type=int)
    parser.add_argument("--deliver", action="store_true")
    parser.add_argument("--max-bytes", type=int, default=1 << 30)
    options = parser.parse_args()
    buffer._PATIENCE = 0.1  # as if every step took a while
    # A job waits up to half a minute between attempts: cut off again and again, it would not be done in time.
    assert hasattr(reconnect, "_LONGEST_DELAY")
    reconnect._LONGEST_DELAY = 0.4
    spool = Spool(options.folder, max_bytes=options.max_bytes)
    stream = RoutingStream(options.address, run="run", config=CONFIG, buffer_bytes=MEMORY, spool=spool)
    for step in range(options.first, options.end):
        train(stream, range(step, step + 1))
        while stream.stats.buffered_bytes > MEMORY // 2:
            time.sleep(0.001)
    if options.deliver:
        assert stream.flush(120)
        stream.close(60)  # its files are deleted by then
    else:
        while stream.stats.buffered_bytes > 0:
            time.sleep(0.01)
    stats = stream.stats
    told = {
        "spooled": stats.spooled_bytes,
        "dropped_steps": stats.dropped_steps,
        "dropped_observations": stats.dropped_observations,
        "rejected": stats.rejected,
        "error": stats.spool_error,
    }
    print(json.dumps(told), flush=True)
    if not options.deliver:
        time.sleep(600)


if __name__ == "__main__":
    main()
