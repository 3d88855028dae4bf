"""The command line of `python bench/overload`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.overload.flood import SAMPLES
from bench.overload.paced import PacedRun
from bench.sidecar import Sidecar

DESCRIPTION = """\
Does a run that floods the server slow another one's signals? One run sends a step at an even pace; measured
is the time from the last message of a step to its signal on WatchSignals, in three conditions in turn:

  alone      nothing beside it
  elsewhere  eight streams flood a second server on the same machine: what they cost in CPU time
  here       the same eight streams flood the same server

The flooding clients are of lowest priority (nice 19), the servers are not. here / alone is what a user of one
machine sees; here / elsewhere is what sharing the server adds to sharing the machine. Flooding is of two
kinds: `rounds` (every step closes a window, so that metrics are computed without pause) and `ingest` (as many
bytes as the server takes, into one window).
"""
CONDITIONS = ("alone", "elsewhere", "here")
SETTLE_SECONDS = 3.0
"""How long a flood is let grow before it counts."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Latencies of the paced run in one condition, seconds."""

    mode: str
    condition: str
    steps: int
    p50: float
    p90: float
    p99: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print JSON lines."""
    parser = argparse.ArgumentParser(
        prog="python bench/overload",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--blocks", type=int, default=3, help="turns of each condition (3)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a turn (20)")
    parser.add_argument("--interval", type=float, default=0.25, help="seconds between the paced steps (0.25)")
    parser.add_argument("--streams", type=int, default=8, help="streams that flood (8)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="pathwatch-overload-") as folder:
        latencies = _measure(Path(folder), options)
    outcomes = [_outcome(mode, condition, values) for (mode, condition), values in latencies.items()]
    for outcome in outcomes:
        print(json.dumps(asdict(outcome)), flush=True)
    for mode in SAMPLES:
        alone, elsewhere, here = (
            next(o for o in outcomes if (o.mode, o.condition) == (mode, condition))
            for condition in CONDITIONS
        )
        ratios = {
            f"{name}_{percentile}": round(getattr(here, percentile) / getattr(base, percentile), 2)
            for name, base in (("here_to_alone", alone), ("here_to_elsewhere", elsewhere))
            for percentile in ("p50", "p90", "p99")
        }
        print(json.dumps({"mode": mode, "cores": os.cpu_count(), "load": os.getloadavg()[0], **ratios}))


def _measure(folder: Path, options: argparse.Namespace) -> dict[tuple[str, str], list[float]]:
    latencies: dict[tuple[str, str], list[float]] = {}
    with (
        Sidecar(folder / "here") as here,
        Sidecar(folder / "elsewhere") as elsewhere,
        PacedRun(here.grpc, "paced") as paced,
    ):
        list(paced.latencies(5, interval=options.interval))  # imports and caches
        address = {"elsewhere": elsewhere.grpc, "here": here.grpc}
        for block in range(options.blocks):
            for mode in SAMPLES:
                for condition in CONDITIONS:
                    flood = None
                    if condition in address:
                        flood = _start_flood(address[condition], f"{mode}-{block}", mode, options)
                        time.sleep(SETTLE_SECONDS)
                    values = list(paced.latencies(options.seconds, interval=options.interval))
                    latencies.setdefault((mode, condition), []).extend(values)
                    said = flood.communicate(timeout=120)[0].strip() if flood else ""
                    p50 = f"{1000 * float(np.median(values)):.0f}"
                    print(
                        f"block {block} {mode} {condition}: p50 {p50} ms {said}", file=sys.stderr, flush=True
                    )
    return latencies


def _start_flood(address: str, run: str, mode: str, options: argparse.Namespace) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.overload.flood", address, run, mode]
    command += ["--streams", str(options.streams), "--seconds", str(options.seconds + SETTLE_SECONDS)]
    return subprocess.Popen(
        ["nice", "-n", "19", *command],
        cwd=Path(__file__).resolve().parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )


def _outcome(mode: str, condition: str, values: Sequence[float]) -> Outcome:
    p50, p90, p99 = (round(float(value), 4) for value in np.percentile(values, [50, 90, 99]))
    return Outcome(mode=mode, condition=condition, steps=len(values), p50=p50, p90=p90, p99=p99)
