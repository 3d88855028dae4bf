"""The client alone in a training loop, while the sidecar is there, is not there, freezes, or refuses."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from bench.overhead import models
from bench.overhead.client_calls import ABSENT, EXPERTS, LAYERS
from bench.overhead.inside import look_inside
from bench.overhead.job import DeepSpeedJob, Job
from bench.overhead.measuring import CONTROL, ModelReport, from_rank_0
from bench.overhead.results import baseline_seconds, costs_of
from bench.overhead.timing import Runner
from bench.overhead.variants import Variant, Without
from pathwatch.client import RoutingStream
from pathwatch.v1 import run_pb2

SAMPLES = 16
"""Observed in every step: 64 KiB."""
BUFFER_BYTES = 1 << 20
"""Full after 15 steps: most blocks see it grow, be full and drop steps."""


class Sending:
    """Observations of every step sent by the client, made beforehand: no routers are read."""

    every = 1
    package = "pathwatch"

    def __init__(self, name: str, server: str, *, known: bool = True, frozen: int | None = None) -> None:
        """An unknown run is refused; the server process `frozen` is stopped once it has taken something."""
        self.name = f"sidecar {name}"
        self.gives = f"{SAMPLES} observations in every step"
        self.taken = 0
        self._server = server
        self._frozen = frozen
        self._run = name
        topology = run_pb2.Topology(layers=LAYERS, experts=EXPERTS)
        mode = run_pb2.OBSERVATION_MODE_PROBE
        self._config = run_pb2.RunConfig(topology=topology, mode=mode) if known else None
        self._weights_NLK = np.full((SAMPLES, LAYERS, EXPERTS), 1 / EXPERTS, np.float32)
        self._ids_N, self._losses_N = np.arange(SAMPLES), np.ones(SAMPLES, np.float32)

    def attach(self, job: Job) -> None:
        """Open the stream."""
        self._stream = RoutingStream(
            self._server, run=self._run, config=self._config, buffer_bytes=BUFFER_BYTES
        )

    def extra(self) -> Mapping[str, Any]:
        """None."""
        return {}

    def after_step(self, output: object) -> None:
        """One step's observations."""
        self._stream.observe(
            step=self.taken,
            group="text",
            sample_ids=self._ids_N,
            weights=self._weights_NLK,
            losses=self._losses_N,
        )
        self._stream.watermark(self.taken)
        self.taken += 1

    def settle(self) -> None:
        """Wait for the connection, if there is to be one, and freeze what is to be frozen."""
        arrives = self._frozen is not None or self.name == "sidecar present"
        if arrives and not self._stream.flush(30.0):
            raise RuntimeError(f"{self.name}: nothing arrived: {self._stream.stats}")
        if self._frozen is not None:
            os.kill(self._frozen, signal.SIGSTOP)

    def detach(self) -> None:
        """Close the stream, soon."""
        self._stream.close(0.2)
        if self._frozen is not None:
            os.kill(self._frozen, signal.SIGCONT)


def measure_outages(server: str, steps: int, seconds: float, progress: Callable[[str], None]) -> ModelReport:
    """The cheapest of models, so that a fixed cost shows."""
    with freezable() as (frozen_server, process):
        variants: list[Variant] = [
            Without(),
            Without(CONTROL),
            Sending("present", server),
            Sending("absent", ABSENT),
            Sending("frozen", frozen_server, frozen=process),
            Sending("refusing", server, known=False),
        ]
        model = models.olmoe(layers=1, experts=4, width=32, hidden=32)
        runner = Runner(DeepSpeedJob(model, zero_stage=1), from_rank_0)
        run = runner.run(variants[0], variants[1:], steps=steps, seconds=seconds, progress=progress)
        progress("looking inside")
        inside = {variant.name: look_inside(runner, variant, steps) for variant in variants}
    step_median, step_p99 = baseline_seconds(run)
    return ModelReport(
        model="The client alone, a small OLMoE",
        step_seconds_median=step_median,
        step_seconds_p99=step_p99,
        costs=costs_of(run),
        inside=inside,
        gives={variant.name: variant.gives for variant in variants},
    )


@contextmanager
def freezable() -> Iterator[tuple[str, int]]:
    """Address and process of a sidecar that may be stopped with SIGSTOP; killed in the end."""
    context = get_context("spawn")
    here, there = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        process = context.Process(target=_serve, args=(folder, there), daemon=True)
        process.start()
        try:
            yield here.recv(), int(process.pid or 0)
        finally:
            process.kill()
            process.join()


def _serve(folder: str, told: Connection) -> None:
    from pathwatch.server.app import BackgroundServer
    from pathwatch.server.config import ServerConfig

    with BackgroundServer(ServerConfig(data=Path(folder))) as server:
        told.send(server.grpc_address)
        signal.pause()
