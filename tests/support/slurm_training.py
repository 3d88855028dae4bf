"""What a batch script starts: sends a recorded run and, told by SIGUSR1, saves and ends.

`python slurm_training.py TRACE STEPS [FIRST]`: server and run from the environment, the attempt from the
count of restarts. After so many steps of the trace it goes on without news until it is told; two minutes at
most. After FIRST of them it waits until the file `go_on` is there. The server may be away at any time.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from job import persistently
from recorded_run import RecordedRun, recorded


def main(trace: str, steps: int, first: int) -> None:
    told = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: told.set())
    run, attempt = os.environ["PATHWATCH_RUN"], int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    server = os.environ["PATHWATCH_SERVER"]
    with persistently(server, lambda _: RecordedRun(server, run, recorded(trace), attempt=attempt)) as job:
        job.send(first)
        while first < steps and not Path("go_on").exists():
            time.sleep(0.02)
        job.send(steps - first)
        persistently(server, lambda _: job.wait_judged())
        Path("trained").touch()
        if not told.wait(120):
            sys.exit("nobody told it to end")
    Path("saved").write_text(f"attempt {attempt}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[-1]))
