"""The command line of `python bench/latency`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bench.command import run_bench
from bench.figures import Figure, Unit
from bench.latency.calls import Calls
from bench.latency.closing import closing_seconds
from bench.latency.loading import Load
from bench.latency.rounds import Arrival, Rounds
from bench.sidecar import Sidecar

DESCRIPTION = """\
How long does a job wait for a verdict? Rounds of 8 groups x 512 samples of OLMoE's size (16 x 64) arrive,
each spread over three quarters of the time between two rounds, and every signal is timed from the sending
of the round's last observation to its arrival on a WatchSignals stream: group after group (as a probe is
read), and with all groups up to the end (as a stream of training batches has them). Meanwhile another run's
eight streams send at half of the rate that they reached just before with nothing beside them, from the sender
of bench/ingest: that peak should be about what ingest.bytes.stream says, which has windows close beside it.
Four seconds lie between two rounds: closing one takes most of a second of a core, and rounds that come as
fast as they can be closed time the queue they make. GetSignal is called all the while, in turn with a unary
call of a bare grpc.aio server in a process of its own; and without any load.
"""
INTERVAL = 4.0
QUIET_INTERVAL = 2.0
"""Seconds between two rounds, with the load beside them and without."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    run_bench("latency", DESCRIPTION, measure, arguments)


def measure(quick: bool) -> Iterator[Figure]:
    """The figures, as they come."""
    by_group, mixed, quiet = (4, 3, 3) if quick else (14, 6, 6)
    with tempfile.TemporaryDirectory(prefix="pathwatch-latency-") as folder:
        closing = closing_seconds(2 if quick else 3)
        with Sidecar(Path(folder) / "data") as server:
            with Rounds(server.grpc, "quiet", Arrival.BY_GROUP) as rounds:
                list(rounds.latencies(1, interval=QUIET_INTERVAL))  # imports and caches
                with Calls(server.grpc, "quiet") as calls:
                    unloaded = list(rounds.latencies(quiet, interval=QUIET_INTERVAL))
            yield _seconds("latency.quiet.signal.p50", unloaded, 50)
            yield _seconds("latency.quiet.get_signal.p99", calls.signal, 99)
            with Load(server.grpc, "peak") as load:
                _wait_for(load, 3 if quick else 6)
            peak = load.rate
            half = peak / 2
            with Load(server.grpc, "half", rate=half) as load:
                with (
                    Rounds(server.grpc, "probe", Arrival.BY_GROUP) as rounds,
                    Calls(server.grpc, "probe") as calls,
                ):
                    probe = list(rounds.latencies(by_group + 1, interval=INTERVAL))[1:]
                with Rounds(server.grpc, "stream", Arrival.MIXED) as rounds:
                    stream = list(rounds.latencies(mixed + 1, interval=INTERVAL))[1:]
            beside = f"; ingest beside it {load.rate:.0f} MB/s, wanted {half:.0f} of {peak:.0f}"
    yield _seconds("latency.signal.p50", probe, 50, aim=0.15, more=beside)
    yield _seconds("latency.signal.p99", probe, 99, aim=1.0)
    yield _seconds("latency.mixed.signal.p50", stream, 50, aim=0.15)
    yield _seconds("latency.mixed.signal.p99", stream, 99, aim=1.0)
    yield _seconds("latency.get_signal.p99", calls.signal, 99, aim=0.01)
    yield _ratio("latency.signal.over_close", np.median(probe), closing, "in-process close of all groups")
    yield _ratio("latency.mixed.signal.over_close", np.median(stream), closing, "the same")
    bare = float(np.median(calls.bare))
    p99 = f"p99 {np.percentile(calls.bare, 99) * 1e3:.3g} ms; median"
    yield _ratio("latency.get_signal.over_bare", np.median(calls.signal), bare, f"bare call {p99}")


def _wait_for(load: Load, seconds: int) -> None:
    time.sleep(seconds)
    if load.rate <= 0:
        raise RuntimeError("nothing of the load was acknowledged")


def _seconds(
    name: str, taken: Sequence[float], percentile: float, *, aim: float | None = None, more: str = ""
) -> Figure:
    """A percentile of times."""
    low, middle, high = np.percentile(taken, [0, 50, 100])
    return Figure(
        name=name,
        value=float(np.percentile(taken, percentile)),
        unit=Unit.SECONDS,
        higher_is_better=False,
        aim=aim,
        detail=f"{len(taken)} times, {low * 1e3:.3g} / {middle * 1e3:.3g} / {high * 1e3:.3g} ms{more}",
    )


def _ratio(name: str, value: float | np.floating, of: float, what: str) -> Figure:
    return Figure(
        name=name,
        value=float(value) / of,
        unit=Unit.RATIO,
        higher_is_better=False,
        detail=f"{float(value) * 1e3:.3g} ms; {what} {of * 1e3:.3g} ms",
    )
