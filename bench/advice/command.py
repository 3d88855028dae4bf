"""Measures what a fleet sends in a window, from 8 to 4,096 ranks, against what the windows need.

    python bench/advice [--quick] [--json FILE]

8 groups of 512 samples at OLMoE size; every sample is new, and the more ranks, the more of them. Ranks are
the client's decisions and buffer without its threads, each on a stream of its own to a real server; at 8
ranks real clients do the same. Bytes are those of all messages up, watermarks and reports included. From 512
ranks on some of the groups are sent and counted for all, watermarks once: reports that groups share then
count more than once, so that these figures are a little too high. The first window of a run, when nothing is
known yet, has figures of its own. That windows come to the same without advice is checked bit for bit.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.advice.fleet import RUN, windows_sent
from bench.advice.workload import GROUPS, WINDOW_STEPS, Workload
from bench.command import run_bench
from bench.figures import Figure, Unit
from bench.sidecar import Sidecar
from pathwatch.client import Client, RoutingStream

FLEETS = (
    Workload(ranks=8, samples=80),
    Workload(ranks=64, samples=20),
    Workload(ranks=512, samples=4, groups=2),
    Workload(ranks=4096, samples=1, groups=4),
)
WINDOWS = {8: 6, 64: 6, 512: 3, 4096: 2}
"""Per fleet, by its ranks, the first with them."""
_QUICK_WINDOWS = 3
AIM = 1.2
_PATIENCE = 600.0
_LIMITS = ("streams=5000", "streams_per_run=5000", "calls=6000")


def main() -> None:
    """The command line."""
    run_bench("advice", __doc__ or "", measure)


def measure(quick: bool) -> Iterator[Figure]:
    """See the module."""
    # One loop: gRPC's poller does not survive the first.
    with tempfile.TemporaryDirectory(prefix="pathwatch-bench-") as folder, asyncio.Runner() as runner:
        for workload in FLEETS:
            ranks = workload.ranks
            needed = workload.needed_bytes()
            with Sidecar(Path(folder) / str(ranks), limits=_LIMITS) as server:
                count = min(WINDOWS[ranks], _QUICK_WINDOWS) if quick else WINDOWS[ranks]
                sent = runner.run(windows_sent(server.grpc, workload, count))
                said = _said(server.grpc, count)
            part = workload.groups < len(GROUPS)
            detail = f"from {workload.groups} of {len(GROUPS)} groups" if part else ""
            yield _figure(f"advice.bytes.first.{ranks}", sent[:1], needed, detail, AIM)
            if workload is FLEETS[0]:
                _check_equal(runner, Path(folder), workload, count, said)
                detail = "windows equal those without advice"
                real = [_real_clients(Path(folder), workload, count)]
                yield _figure(f"advice.bytes.real.{ranks}", real, needed, "real clients", AIM)
            yield _figure(f"advice.bytes.{ranks}", sent[1:], needed, detail, AIM)
        largest = FLEETS[-1]
        without = [largest.bytes_without_advice()]
        yield _figure(f"advice.bytes.none.{largest.ranks}", without, largest.needed_bytes(), "", None)


def _figure(name: str, sent: Iterable[float], needed: float, detail: str, aim: float | None) -> Figure:
    windows = list(sent)
    mean = sum(windows) / len(windows)
    megabytes = f"{mean / 1e6:.1f} MB a window, needed {needed / 1e6:.1f} MB"
    return Figure(
        name=name,
        value=mean / needed,
        unit=Unit.RATIO,
        higher_is_better=False,
        aim=aim,
        detail=f"{megabytes}; {detail}" if detail else megabytes,
    )


def _said(address: str, windows: int) -> list[tuple[Any, ...]]:
    """What the server says of every window, once all are judged."""
    deadline = time.monotonic() + _PATIENCE
    with Client(address) as client:
        while (metrics := client.get_metrics(RUN)).closed_step < windows * WINDOW_STEPS - 1:
            if time.monotonic() > deadline:
                raise RuntimeError(f"only step {metrics.closed_step} was judged within {_PATIENCE} s")
            time.sleep(0.05)
    return [(one.group, one.step, one.phase, sorted(one.metrics.items())) for one in metrics.windows]


def _check_equal(
    runner: asyncio.Runner, folder: Path, workload: Workload, windows: int, said: list[tuple[Any, ...]]
) -> None:
    with Sidecar(folder / "deaf", limits=_LIMITS) as server:
        runner.run(windows_sent(server.grpc, workload, windows, deaf=True))
        if _said(server.grpc, windows) != said:
            raise RuntimeError("windows came to something else than without advice")


def _real_clients(folder: Path, workload: Workload, windows: int) -> float:
    """Bytes a window that real clients send, by the server's count; the first window left out."""
    with Sidecar(folder / "real", limits=_LIMITS) as server:
        streams = [
            RoutingStream(server.grpc, run=RUN, rank=rank, world_size=workload.ranks, config=workload.config)
            for rank in range(workload.ranks)
        ]
        _wait(lambda: all(stream.stats.holds_back for stream in streams))
        first = 0.0
        for window in range(windows):
            for step in workload.steps(window):
                for rank, stream in enumerate(streams):
                    for one in workload.observations(rank, step):
                        stream.observe(step=step, group=one.group, **one.arrays)  # type: ignore[arg-type]
                    stream.watermark(step)
            for stream in streams:
                stream.watermark(window * WINDOW_STEPS + WINDOW_STEPS - 1)
            _said(server.grpc, window + 1)
            first = first or _ingested(server.http)
        total = _ingested(server.http)
        for stream in streams:
            stream.close()
    return (total - first) / (windows - 1)


def _wait(condition: Any) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"streams did not begin within {_PATIENCE} s")
        time.sleep(0.02)


def _ingested(http: str) -> float:
    with urllib.request.urlopen(f"http://{http}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("pathwatch_ingest_bytes_total"):
                return float(line.rpartition(" ")[2])
    raise RuntimeError("the server publishes no pathwatch_ingest_bytes_total")
