"""The command line of `python bench/soak`."""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.sidecar import Sidecar
from bench.soak.sampling import NAMES, Sample, sample
from bench.soak.verdict import STEADY, growth, problems
from pathwatch.server.config import parse_limits

DESCRIPTION = """\
Does a server under full load stay within its limits, and does nothing in it grow? Several processes create
runs, send as fast as the server takes it, finish and delete them; memory, open files, threads, series and
bytes on disk are sampled. Fails when resident memory passes what the limits add up to, when the write-ahead
log grows large, or when series, files or threads grow over the second half.
"""
LIMITS = (
    "message_bytes=4MiB",
    "unacked_bytes_per_stream=8MiB",
    "unacked_bytes_per_run=16MiB",
    "unacked_bytes=32MiB",
    "waiting_bytes=16MiB",
    "window_bytes_per_run=64MiB",
    "window_bytes=96MiB",
)
"""Tight ones, so that the load comes up against them."""
PROCESS_BYTES = 320 << 20
"""What the process takes without any data: interpreter, libraries, gRPC, and the metrics at work."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Soak, print samples and a verdict; exit code 1 when it was not survived."""
    parser = argparse.ArgumentParser(
        prog="python bench/soak",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="how long (20)")
    parser.add_argument("--clients", type=int, default=3, help="processes that send (3)")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between samples (2)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the samples here, too")
    options = parser.parse_args(arguments)
    bound = PROCESS_BYTES + parse_limits(LIMITS).memory_bytes
    print(f"resident memory must stay below {bound >> 20} MiB: {', '.join(LIMITS)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="pathwatch-soak-") as folder:
        samples, said = _soak(Path(folder) / "data", options)
    if options.csv is not None:
        with options.csv.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(NAMES)
            writer.writerows([getattr(one, name) for name in NAMES] for one in samples)
    last = samples[-1]
    summary: dict[str, object] = {
        "minutes": options.minutes,
        "samples": len(samples),
        "ingested_mb": round(last.ingested_bytes / 1e6),
        "rss_mib_max": max(one.rss_bytes for one in samples) >> 20,
        "rss_mib_bound": bound >> 20,
        "rss_mib_growth": round(growth(samples, "rss_bytes")[0] / 2**20, 1),
        "store_mib": last.store_bytes >> 20,
        "wal_mib_max": max(one.wal_bytes for one in samples) >> 20,
        **{f"{name}_growth": round(growth(samples, name)[0], 1) for name in STEADY},
        "clients": said,
    }
    print(json.dumps(summary))
    found = problems(samples, bound)
    for problem in found:
        print(problem, file=sys.stderr)
    sys.exit(1 if found else 0)


def _soak(data: Path, options: argparse.Namespace) -> tuple[list[Sample], list[object]]:
    seconds = 60 * options.minutes
    samples: list[Sample] = []
    command = [sys.executable, "-m", "bench.soak.workload", "--seconds", str(seconds)]
    with Sidecar(data, limits=LIMITS) as sidecar:
        clients = [
            subprocess.Popen(
                [*command, sidecar.grpc, str(number)],
                cwd=Path(__file__).resolve().parents[2],
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(options.clients)
        ]
        began = time.monotonic()
        try:
            while time.monotonic() - began < seconds:
                time.sleep(options.every)
                samples.append(sample(sidecar, data, began))
                if len(samples) % 15 == 0:
                    _show(samples[-1])
            said: list[object] = [_result(client) for client in clients]
        finally:
            for client in clients:
                client.kill()
                client.wait()
    return samples, said


def _result(client: subprocess.Popen[str]) -> object:
    out, _ = client.communicate(timeout=600)
    if client.returncode:
        raise RuntimeError(f"a client failed with exit code {client.returncode}")
    return json.loads(out)


def _show(one: Sample) -> None:
    print(
        f"{one.seconds:7.0f} s  rss {one.rss_bytes >> 20} MiB  files {one.files}  threads {one.threads}  "
        f"series {one.series}  store {one.store_bytes >> 20} MiB  wal {one.wal_bytes >> 20} MiB  "
        f"ingested {one.ingested_bytes / 1e6:.0f} MB",
        flush=True,
    )
