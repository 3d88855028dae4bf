"""Resident memory of a client that sends, and of a server at rest, with one run and with many."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figure, Unit
from bench.footprint.probing import GROUPS, SAMPLES, ProbedRun
from bench.footprint.status import peak, resident
from bench.sidecar import Sidecar

_ROUNDS = 3
_MANY = 100
_SETTLED = 2.0
"""Seconds after which a server at rest has done all that it does in the background."""


def client_memory(folder: Path) -> Iterator[Figure]:
    """Of a rank in a process of its own, which does nothing but make arrays and send them."""
    with Sidecar(folder / "client") as sidecar:
        command = [sys.executable, "-m", "bench.footprint.rank", sidecar.grpc]
        for _ in range(2):  # the first makes the bytecode, which takes memory
            done = subprocess.run(command, capture_output=True, text=True, check=True)
    held, most, libraries = map(float, done.stdout.split())
    yield _figure(
        "client",
        held,
        64,
        f"peak {most:.0f} MB, {libraries:.0f} MB with gRPC, protobuf and NumPy alone",
    )


def server_memory(folder: Path, *, runs: int) -> Iterator[Figure]:
    """At rest; after rounds of one run were judged, the next window held; and with a window of each run."""
    # By default a server that holds a GiB of open windows makes runs with more than their fair share wait.
    with Sidecar(folder / "server", limits=["window_bytes=4GiB"]) as sidecar:
        time.sleep(_SETTLED)
        idle = resident(sidecar.pid)
        yield _figure("server.idle", idle, 90)
        with ProbedRun(sidecar.grpc, "run0") as first:
            for step in range(_ROUNDS):
                first.observe(step)
                first.close_window(step)
            first.observe(_ROUNDS)
            held = resident(sidecar.pid)
            yield _figure(
                "server.window",
                held,
                250,
                f"peak {peak(sidecar.pid):.0f} MB; {_ROUNDS} rounds of {GROUPS} x {SAMPLES} samples judged",
            )
        for number in range(1, runs):
            with ProbedRun(sidecar.grpc, f"run{number}") as run:
                run.observe(0)
        each = (resident(sidecar.pid) - held) / (runs - 1)
        scaled = "" if runs == _MANY else f", scaled from {runs} runs"
        yield _figure(
            f"server.{_MANY}runs",
            held + (_MANY - 1) * each,
            4000,
            f"{each:.1f} MB each, peak {peak(sidecar.pid):.0f} MB{scaled}",
        )


def _figure(name: str, megabytes: float, aim: float, detail: str = "") -> Figure:
    return Figure(
        name=f"footprint.{name}",
        value=megabytes,
        unit=Unit.MEGABYTES,
        higher_is_better=False,
        aim=aim,
        detail=detail,
    )
