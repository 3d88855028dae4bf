"""The command line of `python bench/scale`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.figures import machine
from bench.paste import check, paste
from bench.scale import tables
from bench.scale.costs import run_costs
from bench.scale.rank_costs import rank_costs
from bench.scale.relaying import relayed
from bench.scale.spreading import spread
from bench.scale.takeover import takeovers
from bench.window.windows import DEEPSEEK_V3, OLMOE, Model

MAKER = "bench/scale"
DESCRIPTION = """\
What shards over one Redis, ranks and relays cost, on one machine: everything runs here, over loopback.

  costs     memory and CPU time of runs and ranks, bytes in Redis, and the capacity plan that follows
  shards    a load that is bound by computing: one shard confined to a core, two with a core each
  takeover  kill -9 of the shard that has a run: until the first new acknowledgement
  relay     the same ranks straight to a shard and through a relay
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    models: Sequence[tuple[Model, int]]
    """With how many runs that are open together."""
    ranks: Sequence[tuple[int, int, float]]
    """Fleets: ranks, connections, seconds between watermarks."""
    steps: int
    turns: int
    """Of one shard and of two, and straight and through a relay."""
    rounds_per_run: int
    kills: Sequence[tuple[float, int]]
    """Seconds of the lease, and how many times."""
    relay_windows: int
    """In a turn."""


FULL = Plan(
    models=((OLMOE, 20), (DEEPSEEK_V3, 1)),
    ranks=((1024, 1024, 1.0), (4096, 64, 4.0)),
    steps=4,
    turns=3,
    rounds_per_run=3,
    kills=((2, 3), (5, 2), (10, 2)),
    relay_windows=1,
)
QUICK = Plan(
    models=((OLMOE, 5),),
    ranks=((256, 256, 1.0),),
    steps=3,
    turns=1,
    rounds_per_run=2,
    kills=((2, 2),),
    relay_windows=1,
)


_IDLE = 50
"""Runs that nothing is sent to."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one of the parts found."""

    text: str
    numbers: Any


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="python bench/scale",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; without: all")
    parser.add_argument("--quick", action="store_true", help="under 2 minutes, wider scatter")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here, too")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="put the tables into this page, between its marks, too"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    wanted = options.parts or list(PARTS)
    if options.markdown is not None:
        if set(wanted) != set(PARTS):
            parser.error("--markdown writes the tables of all parts: name none")
        try:
            check(options.markdown, MAKER)
        except ValueError as error:
            parser.error(str(error))
    on = machine()
    found: dict[str, Part] = {}
    for name in wanted:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="pathwatch-scale-") as folder:
            found[name] = PARTS[name](Path(folder), QUICK if options.quick else FULL)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    head = f"{on['cores']} × {on['processor']}, Python {on['python']}."
    text = "\n\n".join([head, *(part.text for part in found.values())])
    print(text)
    if options.markdown is not None:
        paste(options.markdown, MAKER, text)
    if options.json is not None:
        report = {"machine": on, **{name: part.numbers for name, part in found.items()}}
        options.json.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")


def _costs(folder: Path, plan: Plan) -> Part:
    runs = [run_costs(folder / model.name, model, runs=count, idle=_IDLE) for model, count in plan.models]
    ranks = [
        rank_costs(folder / f"{count}", ranks=count, connections=over, every_seconds=every, steps=plan.steps)
        for count, over, every in plan.ranks
    ]
    text = "\n\n".join(
        [
            "### What runs and ranks cost",
            tables.run_table(runs),
            tables.rank_table(ranks),
            "### How many fit",
            tables.capacity_table(runs, ranks[0]),
        ]
    )
    return Part(text, {"runs": list(map(asdict, runs)), "ranks": list(map(asdict, ranks))})


def _shards(folder: Path, plan: Plan) -> Part:
    found = spread(folder, turns=plan.turns, rounds_per_run=plan.rounds_per_run)
    return Part(f"### One shard and two\n\n{tables.spread_table(found)}", asdict(found))


def _takeover(folder: Path, plan: Plan) -> Part:
    found = [
        takeovers(folder / f"{seconds:g}", lease_seconds=seconds, times=times)
        for seconds, times in plan.kills
    ]
    return Part(f"### A shard is killed\n\n{tables.takeover_table(found)}", list(map(asdict, found)))


def _relay(folder: Path, plan: Plan) -> Part:
    found = relayed(folder, turns=plan.turns, windows=plan.relay_windows)
    return Part(f"### With and without a relay\n\n{tables.relay_table(found)}", asdict(found))


PARTS: dict[str, Callable[[Path, Plan], Part]] = {
    "costs": _costs,
    "shards": _shards,
    "takeover": _takeover,
    "relay": _relay,
}
