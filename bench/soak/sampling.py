"""What a server takes: memory, files, threads, series, bytes on disk."""

from __future__ import annotations

import os
import time
import urllib.request
from dataclasses import dataclass, fields
from pathlib import Path

from bench.sidecar import Sidecar


@dataclass(frozen=True, slots=True)
class Sample:
    """A server at one moment."""

    seconds: float
    """Since the soak began."""
    rss_bytes: int
    """Resident memory."""
    files: int
    """Open file descriptors."""
    threads: int
    series: int
    """Lines of /metrics that are no comments."""
    store_bytes: int
    """The SQLite file."""
    wal_bytes: int
    """Its write-ahead log."""
    ingested_bytes: float
    """Of all messages since the start."""


def sample(sidecar: Sidecar, data: Path, began: float) -> Sample:
    """Look now; `began` is of the monotonic clock."""
    process = Path(f"/proc/{sidecar.pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
    with urllib.request.urlopen(f"http://{sidecar.http}/metrics", timeout=60) as answer:
        lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    ingested = next(
        float(line.split()[-1]) for line in lines if line.startswith("pathwatch_ingest_bytes_total")
    )
    return Sample(
        seconds=round(time.monotonic() - began, 1),
        rss_bytes=int(status["VmRSS"].split()[0]) * 1024,
        files=len(os.listdir(process / "fd")),
        threads=int(status["Threads"]),
        series=len(lines),
        store_bytes=_size(data / "pathwatch.sqlite3"),
        wal_bytes=_size(data / "pathwatch.sqlite3-wal"),
        ingested_bytes=ingested,
    )


NAMES = tuple(item.name for item in fields(Sample))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
