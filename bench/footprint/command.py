"""The command line of `python bench/footprint`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.command import run_bench
from bench.figures import Figure
from bench.footprint.holding import client_memory, server_memory
from bench.footprint.starting import as_installed, starts

DESCRIPTION = """\
What the client and the server take of a machine: resident memory (VmRSS) of real processes, at rest and with
windows of OLMoE's size (8 groups of 512 samples, 16 layers of 64 experts), and how long they take to start,
with files in the page cache and bytecode at hand, as an installed package has it.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write JSON where asked."""
    run_bench("footprint", DESCRIPTION, _measure, arguments)


def _measure(quick: bool) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="pathwatch-footprint-") as name, as_installed(Path(name)):
        yield from starts(Path(name), times=5 if quick else 15)
        yield from client_memory(Path(name))
        yield from server_memory(Path(name), runs=20 if quick else 100)
