"""All measurements of one run of the bench."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from bench.overhead import models
from bench.overhead.aims import DEFAULT
from bench.overhead.inside import Inside, look_inside
from bench.overhead.job import DeepSpeedJob
from bench.overhead.others import Moewatch, RouterLogits
from bench.overhead.ours import Pathwatch, count_observations
from bench.overhead.results import Costs, Synchronised, baseline_seconds, costs_of, synchronised
from bench.overhead.timing import Runner
from bench.overhead.variants import Variant, Without
from pathwatch.server.cli.processes import sidecar

_T = TypeVar("_T")

CONTROL = "without, again"
BLOCKS_A_ROUND = {DEFAULT: 3}
"""More than one of what the aims are about: a 99th percentile takes many steps."""
COUNTED_EVERY = 4
"""Interval where waits for the device are counted: three of them."""
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is run."""

    steps: int
    """Timed in a block."""
    olmoe_seconds: float
    gated_seconds: float
    inside_steps: int
    calls: int
    outage_steps: int
    """Timed in a block of `outages`."""
    outage_seconds: float


FULL = Plan(
    steps=50,
    olmoe_seconds=280,
    gated_seconds=80,
    inside_steps=100,
    calls=400,
    outage_steps=100,
    outage_seconds=240,
)
QUICK = Plan(
    steps=12, olmoe_seconds=20, gated_seconds=5, inside_steps=12, calls=50, outage_steps=40, outage_seconds=60
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """Of one model."""

    model: str
    step_seconds_median: float
    """Of the job without anything."""
    step_seconds_p99: float
    costs: Mapping[str, Costs]
    inside: Mapping[str, Inside]
    gives: Mapping[str, str]


@contextmanager
def server(rank: int) -> Iterator[str]:
    """Address of a sidecar for all ranks, which rank 0 starts and ends."""
    with tempfile.TemporaryDirectory() as folder:
        if rank == 0:
            with sidecar(Path(folder) / "data", Path(folder) / "log") as running:
                yield from_rank_0(running.grpc)
        else:
            yield from_rank_0("")


def measure_models(plan: Plan, address: str, progress: Callable[[str], None]) -> list[ModelReport]:
    """OLMoE with everything there is, then DeepSpeed's MoE with what reads it."""
    count_observations()
    everything: list[Variant] = [
        Without(),
        Without(CONTROL),
        *(Pathwatch.stream(address, every, job="olmoe") for every in (1, 10, 50)),
        *(Pathwatch.probe(address, every, job="olmoe") for every in (50, 200)),
        RouterLogits(),
        *(Moewatch(every) for every in (1, 10)),
    ]
    fewer: list[Variant] = [
        Without(),
        Without(CONTROL),
        Pathwatch.stream(address, 10, job="gated"),
        Pathwatch.probe(address, 50, job="gated"),
    ]
    # ZeRO wants DeepSpeed's experts in parameter groups of their own.
    return [
        _measure("OLMoE, ZeRO-1", models.olmoe(), 1, everything, plan, plan.olmoe_seconds, progress),
        _measure("DeepSpeed MoE", models.gated(), 0, fewer, plan, plan.gated_seconds, progress),
    ]


def count_waits() -> dict[str, Synchronised]:
    """Waits for the device, from a process of its own: see `synchronisation`."""
    command = [sys.executable, "-m", "bench.overhead.synchronisation"]
    command += ["--every", str(COUNTED_EVERY), "--steps", str(3 * COUNTED_EVERY)]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    counts = json.loads(output.splitlines()[-1])
    return {
        name.removesuffix(f" every {COUNTED_EVERY}"): synchronised(rows, COUNTED_EVERY)
        for name, rows in counts.items()
    }


def _measure(
    name: str,
    model: nn.Module,
    zero_stage: int,
    variants: Sequence[Variant],
    plan: Plan,
    seconds: float,
    progress: Callable[[str], None],
) -> ModelReport:
    runner = Runner(DeepSpeedJob(model, zero_stage=zero_stage), from_rank_0)
    others = [variant for variant in variants[1:] for _ in range(BLOCKS_A_ROUND.get(variant.name, 1))]
    run = runner.run(
        variants[0],
        others,
        steps=plan.steps,
        seconds=seconds,
        progress=lambda doing: progress(f"{name}: {doing}"),
    )
    progress(f"{name}: looking inside")
    inside = {variant.name: look_inside(runner, variant, plan.inside_steps) for variant in variants}
    step_median, step_p99 = baseline_seconds(run)
    return ModelReport(
        model=name,
        step_seconds_median=step_median,
        step_seconds_p99=step_p99,
        costs=costs_of(run),
        inside=inside,
        gives={variant.name: variant.gives for variant in variants},
    )


def from_rank_0(value: _T) -> _T:
    """What rank 0 gives, on every rank."""
    values = [value]
    torch.distributed.broadcast_object_list(values, 0)
    return values[0]
