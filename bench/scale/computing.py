"""Closing rounds and nothing else, in processes with a core each: what the cores come to without a server.

`python -m bench.scale.computing ROUNDS` says "ready", closes so many once it reads a line, and says "done".
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.scale.messages import windows
from bench.window.closing import close
from bench.window.windows import OLMOE, geometry_of

GROUPS, SAMPLES = 4, 128
"""Of a round that takes much computing for its bytes: all 8,128 pairs of a group are compared."""
_ROOT = Path(__file__).resolve().parents[2]


def computing_seconds(cores: Sequence[int], rounds: int) -> float:
    """Until so many rounds are closed, shared out evenly."""
    command = [sys.executable, "-m", "bench.scale.computing", str(rounds // len(cores))]
    processes = [
        subprocess.Popen(
            ["taskset", "--cpu-list", str(core), *command],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for core in cores
    ]
    try:
        _hear(processes, "ready")
        began = time.monotonic()
        for process in processes:
            if process.stdin is not None:
                process.stdin.write("\n")
        _hear(processes, "done")
        return time.monotonic() - began
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _hear(processes: Sequence[subprocess.Popen[str]], word: str) -> None:
    for process in processes:
        if process.stdout is None or process.stdout.readline().strip() != word:
            raise RuntimeError(f"a process that only closes rounds did not say {word!r}")


def main(rounds: int) -> None:
    """Close so many rounds."""
    round_, geometry = windows(OLMOE, groups=GROUPS, samples=SAMPLES), geometry_of(OLMOE)
    close(round_, geometry)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(rounds):
        close(round_, geometry)
    print("done", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
