"""Benches one after the other, each in a process of its own: none leaves the next its memory or threads."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from bench.figures import Figure, read

BENCHES = ("ingest", "raw", "window", "latency", "advice", "footprint", "growth")
"""In the order of docs/performance.md."""
ROOT = Path(__file__).resolve().parents[2]


def run(bench: str, *, quick: bool) -> list[Figure]:
    """Its figures; it says them itself. CalledProcessError where it fails."""
    with tempfile.TemporaryDirectory(prefix="pathwatch-bench-") as folder:
        result = Path(folder) / "figures.json"
        command = [sys.executable, str(ROOT / "bench" / bench), "--json", str(result)]
        subprocess.run([*command, *(["--quick"] if quick else [])], cwd=ROOT, check=True)
        return read(result)
