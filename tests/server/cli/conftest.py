"""Running commands, small traces, and a server that says what a test wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from click.testing import CliRunner, Result

from pathwatch.server.app import BackgroundServer
from pathwatch.server.cli.root import pathwatch
from pathwatch.server.config import ServerConfig
from pathwatch.v1 import run_pb2, run_pb2_grpc, signal_pb2, signal_pb2_grpc


@pytest.fixture
def command() -> Callable[..., Result]:
    """Runs `pathwatch` in this process; keywords become environment variables."""

    def invoke(*arguments: object, **environment: str) -> Result:
        return CliRunner().invoke(pathwatch, list(map(str, arguments)), env=environment)

    return invoke


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundServer]:
    """A real server, shared by all tests of the worker."""
    with BackgroundServer(ServerConfig(data=tmp_path_factory.mktemp("data"))) as running:
        yield running


@pytest.fixture
def trace_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small trace of two groups; keywords replace arrays."""

    def write(name: str = "small", steps: int = 6, **changes: Any) -> Path:
        random = np.random.default_rng(7)
        shape = (steps, 2, 24)
        content = {
            "steps": 25 * np.arange(steps),
            "groups": np.array(["code", "math"]),
            "losses": random.gamma(2, 1, shape).astype(np.float32) / (1 + np.arange(steps))[:, None, None],
            "weights": random.dirichlet(np.ones(4), (*shape, 2)).astype(np.float16),
            "targets": random.integers(0, 3, (2, 24)).astype(np.int32),
            "visits": np.broadcast_to(np.arange(steps)[:, None, None], shape).astype(np.int32),
            "gram_self": np.broadcast_to(np.eye(4), (steps, 2, 4, 4)).astype(np.float32),
            "gram_next": np.broadcast_to(np.eye(4), (steps, 1, 4, 4)).astype(np.float32),
            **changes,
        }
        path = tmp_path / f"{name}.npz"
        np.savez(path, **content)
        return path

    return write


@dataclass
class ScriptedServer(run_pb2_grpc.RunServiceServicer, signal_pb2_grpc.SignalServiceServicer):
    """Knows one run, `pair`, and says of it what a test sets."""

    run: run_pb2.Run = field(default_factory=lambda: run_pb2.Run(name="pair", state=run_pb2.RUN_STATE_ACTIVE))
    signal: signal_pb2.Signal = field(
        default_factory=lambda: signal_pb2.Signal(
            run="pair", step=-1, action=signal_pb2.ACTION_CONTINUE, revision=1
        )
    )
    history: signal_pb2.GetMetricsResponse = field(default_factory=signal_pb2.GetMetricsResponse)
    ranking: list[run_pb2.RankedCheckpoint] = field(default_factory=list)
    then: Callable[[ScriptedServer], None] = lambda server: None
    """Called after each time the run was asked for: the run goes on."""
    address: str = ""

    def _known(self, name: str, context: grpc.ServicerContext) -> None:
        if name != self.run.name:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no run {name!r}")

    def GetRun(self, request: Any, context: Any) -> run_pb2.GetRunResponse:
        self._known(request.name, context)
        response = run_pb2.GetRunResponse(run=self.run)
        self.then(self)
        return response

    def ListRuns(self, request: Any, context: Any) -> run_pb2.ListRunsResponse:
        return run_pb2.ListRunsResponse(runs=[self.run])

    def RankCheckpoints(self, request: Any, context: Any) -> run_pb2.RankCheckpointsResponse:
        self._known(request.run, context)
        limit = request.limit or len(self.ranking)
        return run_pb2.RankCheckpointsResponse(checkpoints=self.ranking[:limit])

    def GetSignal(self, request: Any, context: Any) -> signal_pb2.GetSignalResponse:
        self._known(request.run, context)
        return signal_pb2.GetSignalResponse(signal=self.signal)

    def GetMetrics(self, request: Any, context: Any) -> signal_pb2.GetMetricsResponse:
        self._known(request.run, context)
        return signal_pb2.GetMetricsResponse(
            windows=[window for window in self.history.windows if window.step > request.after_step],
            signals=[signal for signal in self.history.signals if signal.step > request.after_step],
            closed_step=self.history.closed_step,
        )

    def say(self, action: str, **phases: str) -> None:
        """The signal from now on: an action, and a phase by group."""
        self.signal = signal_pb2.Signal(
            run="pair",
            step=100,
            action=signal_pb2.Action.Value(f"ACTION_{action}"),
            reason=f"because of {action}",
            groups=[
                signal_pb2.GroupStatus(
                    group=group,
                    phase=signal_pb2.Phase.Value(f"PHASE_{phase}"),
                    since_step=50,
                    reason="so it is",
                )
                for group, phase in sorted(phases.items())
            ],
            revision=self.signal.revision + 1,
        )
        if action == "STOP":
            self.signal.stop_at_step = 101


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    said = ScriptedServer()
    running = grpc.server(ThreadPoolExecutor(4))
    run_pb2_grpc.add_RunServiceServicer_to_server(said, running)
    signal_pb2_grpc.add_SignalServiceServicer_to_server(said, running)
    said.address = f"127.0.0.1:{running.add_insecure_port('127.0.0.1:0')}"
    running.start()
    yield said
    running.stop(None).wait()
