"""The command line of `python bench/overhead`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from bench.overhead import tables
from bench.overhead.aims import judge
from bench.overhead.client_calls import Calls, measure
from bench.overhead.job import join_world
from bench.overhead.measuring import FULL, QUICK, ModelReport, Plan, count_waits, measure_models, server
from bench.overhead.outages import measure_outages
from bench.paste import check, paste

MAKER = "bench/overhead"
DESCRIPTION = """\
What watching costs a training job: the same DeepSpeed job in turn without pathwatch, with stream mode and
probe mode at several intervals, with transformers' output_router_logits copied to the host, with moewatch.

Blocks of steps alternate and are compared with the blocks without anything next to them, so that a noisy
machine cancels out; intervals are bootstrapped over blocks. A sidecar runs beside, on the same cores. For two
ranks: torchrun --nproc-per-node 2 bench/overhead. docs/overhead.md says what the numbers mean.
"""
PACKAGES = ("torch", "deepspeed", "transformers", "grpcio", "moewatch")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="python bench/overhead",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="under 90 s, with wide intervals")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here, too")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="put the tables into this page, between its marks, too"
    )
    parser.add_argument(
        "--outages",
        action="store_true",
        help="instead: the client alone, while the sidecar is present, absent, frozen or refusing; 3 minutes",
    )
    options = parser.parse_args(arguments)
    if options.outages and (options.json or options.markdown):
        parser.error("--outages prints its tables only; leave out --json and --markdown")
    if options.markdown is not None:
        try:
            check(options.markdown, MAKER)
        except ValueError as error:
            parser.error(str(error))
    rank, ranks = join_world()
    plan = QUICK if options.quick else FULL

    def progress(doing: str) -> None:
        if rank == 0:
            print(doing, file=sys.stderr, flush=True)

    if options.outages:
        _print_outages(rank, ranks, plan, progress)
        return
    with server(rank) as address:
        reports = measure_models(plan, address, progress)
        progress("calls of the client")
        calls = measure(address, plan.calls) if rank == 0 else []
    torch.distributed.destroy_process_group()
    if rank:
        return
    progress("waits for the device")
    waits = count_waits()
    judgements = judge(reports[0].costs, reports[0].inside, waits)
    machine = _machine(ranks)
    text = "\n\n".join(
        [
            _text(machine, reports, calls),
            "Waits for the device, counted on one that does nothing else:",
            tables.waits_table(waits),
            tables.aims_table(judgements),
        ]
    )
    print(text)
    if options.markdown is not None:
        paste(options.markdown, MAKER, text)
    if options.json is not None:
        report = {
            "machine": machine,
            "models": [asdict(report) for report in reports],
            "client_calls": [asdict(call) for call in calls],
            "waits": {name: asdict(waited) for name, waited in waits.items()},
            "aims": [asdict(judgement) for judgement in judgements],
        }
        options.json.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")


def _print_outages(rank: int, ranks: int, plan: Plan, progress: Callable[[str], None]) -> None:
    with server(rank) as address:
        report = measure_outages(address, plan.outage_steps, plan.outage_seconds, progress)
        calls = measure(address, plan.calls) if rank == 0 else []
    torch.distributed.destroy_process_group()
    if rank == 0:
        print(_text(_machine(ranks), [report], calls))


def _machine(ranks: int) -> dict[str, str]:
    return {
        "processor": f"{os.cpu_count()} × {_processor()}",
        "ranks": str(ranks),
        "load": f"{os.getloadavg()[1]:.1f}",
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "processor")


def _text(machine: Mapping[str, str], reports: Sequence[ModelReport], calls: Sequence[Calls]) -> str:
    parts = [", ".join(f"{name} {value}" for name, value in machine.items())]
    for report in reports:
        parts.append(
            f"**{report.model}**: a step takes {report.step_seconds_median * 1e3:.1f} ms "
            f"(p99 {report.step_seconds_p99 * 1e3:.1f} ms); ratios to that, with 95 % intervals:"
        )
        parts += [tables.ratio_table(report.costs), tables.inside_table(report.inside, report.gives)]
    return "\n\n".join([*parts, tables.calls_table(calls)])
