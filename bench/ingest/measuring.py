"""Blocks of echo and of pathwatch in turn, and what they come to."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
from prometheus_client.parser import text_string_to_metric_families

from bench.ingest.generator import Block, Sent
from bench.ingest.workloads import Workload
from bench.overload.messages import topology
from bench.processes import cpu_seconds
from bench.sidecar import Sidecar
from pathwatch.v1 import run_pb2, run_pb2_grpc

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a server took messages in one block."""

    messages: float
    """Per second."""
    cpu: float
    """Seconds of processor that the server spent on a message."""
    closing: float = 0.0
    """Seconds of windows closing, per second; side by side they add up."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Blocks of one workload, in pairs."""

    workload: Workload
    echo: list[Pace]
    validating: list[Pace]
    """A server that parses and validates each message, and does nothing else."""
    pathwatch: list[Pace]

    @property
    def ratio(self) -> float:
        """Messages per second against those of the echo beside it, median."""
        return _ratio(self.pathwatch, self.echo)

    @property
    def ratio_to_validating(self) -> float:
        """The same against the server that only validates: what one interpreter can come to."""
        return _ratio(self.pathwatch, self.validating)

    @property
    def bytes_per_second(self) -> float:
        """Routing weights that pathwatch took, median."""
        return _weights(_median(self.pathwatch), self.workload)

    def told(self) -> str:
        """In numbers, for a reader."""
        ours, echo = (_median(paces) for paces in (self.pathwatch, self.echo))
        return (
            f"{_rate(ours, self.workload)}, {ours.cpu * 1e3:.2f} ms CPU a message; bare echo "
            f"{_rate(echo, self.workload)}, {echo.cpu * 1e3:.2f} ms; "
            f"closing windows {ours.closing:.0%} of a core"
        )

    def told_validating(self) -> str:
        """What the server comes to that only validates."""
        ours, validating = (_median(paces) for paces in (self.pathwatch, self.validating))
        return (
            f"{_rate(ours, self.workload)}; parsed and validated by one event loop, and nothing else, "
            f"{_rate(validating, self.workload)}, {_ratio(self.validating, self.echo):.2f} of the echo"
        )


def side_by_side(workload: Workload, *, pairs: int, seconds: float, data: Path) -> Outcome:
    """`pairs` times a block of each server, of so many seconds."""
    outcome = Outcome(workload, [], [], [])
    with (
        echo_server() as echo,
        echo_server("validate") as validating,
        Sidecar(data) as sidecar,
    ):
        run = f"bench-{workload.name}"
        _create(sidecar.grpc, run, workload)
        step = 0
        for _ in range(pairs):
            for (address, pid), paces in ((echo, outcome.echo), (validating, outcome.validating)):
                block = Block(address=address, run="", workload=workload, first_step=0, seconds=seconds)
                paces.append(_pace(block, pid)[0])
            closed = _closing_seconds(sidecar.http)
            block = Block(address=sidecar.grpc, run=run, workload=workload, first_step=step, seconds=seconds)
            pace, sent = _pace(block, sidecar.pid)
            if sent.rejected or sent.late:
                raise RuntimeError(f"{sent.rejected} messages refused, {sent.late} observations late")
            step = sent.next_step
            took = _closing_seconds(sidecar.http) - closed
            outcome.pathwatch.append(Pace(messages=pace.messages, cpu=pace.cpu, closing=took / sent.seconds))
    return outcome


@contextmanager
def echo_server(*arguments: str) -> Iterator[tuple[str, int]]:
    """Address and process of a server that does next to nothing."""
    command = [sys.executable, "-m", "bench.ingest.echo", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        yield line.strip().removeprefix("grpc="), process.pid
    finally:
        process.terminate()
        process.wait()
        if process.stdout:
            process.stdout.close()


def _pace(block: Block, pid: int) -> tuple[Pace, Sent]:
    before = cpu_seconds(pid)
    command = [sys.executable, "-m", "bench.ingest.generator", json.dumps(asdict(block))]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    sent = Sent(**json.loads(result.stdout))
    cpu = cpu_seconds(pid) - before
    return Pace(messages=sent.messages / sent.seconds, cpu=cpu / sent.all_messages), sent


def _create(address: str, run: str, workload: Workload) -> None:
    config = run_pb2.RunConfig(
        topology=topology(),
        mode=run_pb2.OBSERVATION_MODE_STREAM,
        window_steps=workload.window_steps,
    )
    with grpc.insecure_channel(address) as channel:
        run_pb2_grpc.RunServiceStub(channel).CreateRun(run_pb2.CreateRunRequest(name=run, config=config))


def _closing_seconds(http: str) -> float:
    with urllib.request.urlopen(f"http://{http}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    samples = (
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "pathwatch_window_close_seconds_sum"
    )
    return sum(samples, 0.0)


def _median(paces: list[Pace]) -> Pace:
    return Pace(
        messages=statistics.median(pace.messages for pace in paces),
        cpu=statistics.median(pace.cpu for pace in paces),
        closing=statistics.mean(pace.closing for pace in paces),
    )


def _ratio(paces: list[Pace], beside: list[Pace]) -> float:
    return statistics.median(
        pace.messages / other.messages for pace, other in zip(paces, beside, strict=True)
    )


def _weights(pace: Pace, workload: Workload) -> float:
    batches = len(workload.groups(0))  # and a watermark, in each step
    return pace.messages * batches / (batches + 1) * workload.weight_bytes


def _rate(pace: Pace, workload: Workload) -> str:
    return f"{pace.messages:.0f}/s = {_weights(pace, workload) / 1e6:.0f} MB/s"
