"""`pathwatch serve` as a user starts it, and a made-up run of one rank that fills the disk quickly."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from job import outcome
from ports import lasting_port
from prometheus_client.parser import text_string_to_metric_families

from pathwatch.client import RoutingStream
from pathwatch.v1 import run_pb2

COMMAND = [sys.executable, "-m", "pathwatch.server.cli"]
CONFIG = run_pb2.RunConfig(
    topology=run_pb2.Topology(layers=4, experts=32), grace_seconds=3600, keep_observations=True
)
GROUPS = ("code", "math")


class Serving:
    """Runs from the start, at addresses that it can be started at again; what it logs goes to a file."""

    def __init__(
        self,
        data: Path,
        log: Path,
        *options: str,
        listen: str | None = None,
        http: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log = log
        listen, http = (given or f"127.0.0.1:{lasting_port()}" for given in (listen, http))
        with log.open("a") as errors:
            self.process = subprocess.Popen(
                [*COMMAND, "serve", "--data", data, "--listen", listen, "--http", http, *options],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **(environment or {})},
            )
        assert self.process.stdout is not None
        ready = re.fullmatch(r"grpc=(\S+) http=(\S+)\n", self.process.stdout.readline())
        if ready is None:
            # Killed before it answered, as some tests want it.
            assert self.process.wait(60) == -signal.SIGKILL, log.read_text()
        self.address, self.http = ready.groups() if ready else (listen, http)

    def kill(self) -> None:
        """SIGKILL, and wait for the end; also of one that has ended already."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def scrape(self, name: str, **labels: str) -> float | None:
        """Value of a series, as Prometheus would read it; None where there is none."""
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=30) as page:
            families = text_string_to_metric_families(page.read().decode())
            found = [s.value for f in families for s in f.samples if (s.name, s.labels) == (name, labels)]
        return found[0] if found else None

    def commit_failures(self) -> int:
        """As Prometheus would read it."""
        failures = self.scrape("pathwatch_commit_failures_total")
        assert failures is not None
        return int(failures)

    def stop(self) -> None:
        """SIGTERM; nothing that it logged was a surprise."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0
        assert "Traceback" not in self._log.read_text()


@contextmanager
def serving(data: Path, log: Path, *options: str) -> Iterator[Serving]:
    """Serving until the end, which is sudden unless it was stopped."""
    server = Serving(data, log, *options)
    try:
        yield server
    finally:
        server.kill()


def fsck(data: Path) -> str:
    """What `pathwatch fsck` says of a folder that no server uses."""
    said = subprocess.run(
        [*COMMAND, "fsck", data], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return said.stdout


def train(stream: RoutingStream, steps: range) -> None:
    """Everything the rank has to say about the steps."""
    for step in steps:
        for group in GROUPS:
            rng = np.random.default_rng([step, len(group), *group.encode()])
            stream.observe(
                step=step,
                group=group,
                sample_ids=np.arange(64),
                weights=rng.dirichlet(np.ones(32), size=(64, 4)).astype(np.float32),
                losses=(3 * np.exp(-step / 20) * rng.uniform(0.8, 1.2, 64)).astype(np.float32),
                targets=rng.integers(0, 3, 64, dtype=np.int32),
                visits=np.full(64, step, np.int32),
            )
        stream.watermark(step)


def wait(condition: Callable[[], Any]) -> None:
    """Until it holds; fails after a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within a minute"
        time.sleep(0.05)


def said(address: str) -> dict[str, bytes]:
    """Windows with their metrics and phases, and what was kept: what does not depend on when calls came."""
    return {name: value for name, value in outcome(address).items() if "window" in name or "obser" in name}
