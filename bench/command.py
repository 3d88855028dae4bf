"""The command line that the benches of `bench/every` have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bench.figures import Figure, say, write


def run_bench(
    name: str,
    description: str,
    measure: Callable[[bool], Iterable[Figure]],
    arguments: Sequence[str] | None = None,
) -> None:
    """Parse the arguments of `python bench/NAME`, measure, say each figure as it comes, write JSON if asked.

    `measure` is told whether to be quick, and yields figures whose names begin with `NAME.`.
    """
    parser = argparse.ArgumentParser(
        prog=f"python bench/{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="about a third of the time, wider scatter")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and the machine there")
    options = parser.parse_args(arguments)
    figures = []
    for figure in measure(options.quick):
        say([figure])
        figures.append(figure)
    if options.json is not None:
        write(options.json, figures)
