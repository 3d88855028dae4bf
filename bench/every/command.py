"""The command line of `python bench/every`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.every.regressions import confirmed
from bench.every.running import BENCHES, ROOT, run
from bench.every.table import markdown
from bench.figures import Figure, read, say, write
from bench.paste import check, paste

RECORDED = ROOT / "bench" / "recorded.json"
MAKER = "bench/every"
DESCRIPTION = """\
Runs every bench of speed, memory and growth, one after the other, on a machine that should do nothing else,
and prints all figures. With --check each bench runs quickly, again where a figure is more than 20 % worse
than in bench/recorded.json, and up to three times; what is still worse then is a regression: exit status 1.
--record writes that file from what it prints.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything; print, and write or compare where asked."""
    parser = argparse.ArgumentParser(
        prog="python bench/every",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("benches", nargs="*", metavar="BENCH", help=f"of {', '.join(BENCHES)}; without: all")
    parser.add_argument("--quick", action="store_true", help="about a third of the time, wider scatter")
    parser.add_argument("--check", action="store_true", help="compare with bench/recorded.json")
    parser.add_argument("--record", action="store_true", help="write bench/recorded.json anew")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table into this page")
    options = parser.parse_args(arguments)
    benches = options.benches or list(BENCHES)
    if unknown := set(benches) - set(BENCHES):
        parser.error(f"there is no bench {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    if options.record and set(benches) != set(BENCHES):
        parser.error("--record writes the figures of all benches: name none")
    if options.markdown is not None:
        check(options.markdown, MAKER)
    if options.check:
        sys.exit(_check(benches))
    figures = [figure for bench in benches for figure in run(bench, quick=options.quick)]
    print("\nAll figures:")
    say(figures)
    if options.record:
        write(RECORDED, figures)
    if options.markdown is not None:
        paste(options.markdown, MAKER, markdown(figures))


def _check(benches: Sequence[str]) -> int:
    if not RECORDED.exists():
        print(f"there is no {RECORDED}: `python bench/every --record` writes it", file=sys.stderr)
        return 2
    recorded = read(RECORDED)
    worse: dict[str, float] = {}
    for bench in benches:
        of_bench = [figure for figure in recorded if figure.name.startswith(f"{bench}.")]
        worse |= confirmed(partial(_quickly, bench), of_bench)[1]
    for name, part in worse.items():
        print(f"REGRESSION: {name} is {part:.0%} worse than recorded")
    if not worse:
        print("no ratio and no footprint is more than 20 % worse than recorded")
    return 1 if worse else 0


def _quickly(bench: str) -> list[Figure]:
    return run(bench, quick=True)
