"""The command line of `python bench/growth`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.command import run_bench
from bench.figures import Figure, Unit
from bench.growth.history import history
from bench.growth.runs import runs
from bench.growth.windows import closing, ingest
from bench.paste import check, paste

DESCRIPTION = """\
How do time and memory grow? One quantity at a time is doubled around OLMoE's size (16 layers x 64 experts,
8 groups x 512 samples; smaller where the largest would take too long), the rest stays: CPU time of closing a
window and of taking in a message, bytes of the arrays, CPU time and memory of a server with many runs, and
of a store that keeps up to 100,000 windows of a run: the time to write and to show them, and bytes on disk.
Figures are exponents: the slope of a straight line through the logarithms, 1 = linear, 0 = it does not grow.

`growth.history.100k` is the slowest p99 of what people and schedulers ask of a run of a million steps, with
100,000 windows of one group, over HTTP and gRPC; `growth.history.eight_groups` the same of eight groups that
have as many windows together, all in one answer; `growth.history.over_1k` holds the first against a run of
1,000 windows.

`--markdown docs/growth.md` pastes the curves there.
"""
_MAKER = "bench/growth"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--markdown", type=Path)
    options, others = parser.parse_known_args(arguments)
    if options.markdown is not None:
        check(options.markdown, _MAKER)
    found: list[Figure] = []

    def measure(quick: bool) -> Iterator[Figure]:
        for part in (closing, ingest, runs, history):
            for figure in part(quick):
                found.append(figure)
                yield figure

    run_bench("growth", DESCRIPTION, measure, others)
    if options.markdown is not None:
        paste(options.markdown, _MAKER, _table(found))


def _table(figures: Sequence[Figure]) -> str:
    rows = [
        f"| {figure.name.removeprefix('growth.')} | {figure.value:.2f} | {figure.aim:g} | {figure.detail} |"
        for figure in figures
        if figure.unit is Unit.EXPONENT
    ]
    return "\n".join(["| curve | exponent | at most | measured |", "| --- | ---: | ---: | --- |", *rows])
