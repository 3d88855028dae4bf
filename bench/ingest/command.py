"""How fast observations are taken in: validated, sketched, acknowledged when durable, against a bare echo.

The peer is a grpc.aio server that takes the same messages as bytes and answers each with two bytes. Both run
in processes of their own, one sender in a third; blocks of one and the other take turns, and the figure is
the median of the ratios of neighbours. `stream` sends new samples all the time: few are among the 512 of
smallest hash. `kept` observes one set of 512 samples per group again and again: every observation is kept,
and on disk before it is acknowledged. In both windows end and are judged meanwhile, by the same cores; the
details say how much of one that took. `small` sends messages of one observation. A third server parses and
validates the same messages and does nothing else: what one event loop in Python can come to.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.command import run_bench
from bench.figures import Figure, Unit
from bench.ingest.disk import append_and_sync
from bench.ingest.measuring import Outcome, side_by_side
from bench.ingest.workloads import KEPT, SMALL, STREAM, Workload

BYTES_AIM, MESSAGES_AIM = 0.6, 0.5
"""Of what the echo does."""


def measure(quick: bool) -> Iterator[Figure]:
    """The figures of all workloads."""
    pairs, seconds = (2, 1.5) if quick else (3, 3.0)
    with tempfile.TemporaryDirectory(prefix="pathwatch-bench-") as folder:
        root = Path(folder)

        def run(workload: Workload) -> Outcome:
            return side_by_side(workload, pairs=pairs, seconds=seconds, data=root / workload.name)

        stream = run(STREAM)
        yield _against_echo("ingest.bytes.stream", stream, BYTES_AIM)
        yield _against_validating("ingest.bytes.stream_of_validating", stream)
        kept = run(KEPT)
        yield _against_echo("ingest.bytes.kept", kept, BYTES_AIM)
        yield _against_disk(kept, append_and_sync(root, size=KEPT.weight_bytes, seconds=seconds))
        small = run(SMALL)
        yield _against_echo("ingest.messages.small", small, MESSAGES_AIM)
        yield _against_validating("ingest.messages.small_of_validating", small)


def _against_echo(name: str, outcome: Outcome, aim: float) -> Figure:
    return Figure(
        name=name,
        value=outcome.ratio,
        unit=Unit.RATIO,
        higher_is_better=True,
        aim=aim,
        detail=outcome.told(),
    )


def _against_validating(name: str, outcome: Outcome) -> Figure:
    """The limit of one interpreter that validates all it takes."""
    return Figure(
        name=name,
        value=outcome.ratio_to_validating,
        unit=Unit.RATIO,
        higher_is_better=True,
        detail=outcome.told_validating(),
    )


def _against_disk(kept: Outcome, disk: float) -> Figure:
    """The limit of what is kept: the disk that it must reach."""
    ours = kept.bytes_per_second
    return Figure(
        name="ingest.bytes.kept_of_disk",
        value=ours / disk,
        unit=Unit.PART,
        higher_is_better=True,
        detail=f"{ours / 1e6:.0f} MB/s; the same bytes appended to a file and synced, message by message, "
        f"{disk / 1e6:.0f} MB/s",
    )


def main() -> None:
    """The command line."""
    run_bench("ingest", __doc__, measure)
