"""A server that says what a test wants, in place of one that would have to be brought to say it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from pathwatch.v1 import run_pb2, run_pb2_grpc, signal_pb2, signal_pb2_grpc


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
    refused: dict[str, grpc.StatusCode] = field(default_factory=dict)
    """Names of runs that it does not speak of, and how it says so."""
    then: Callable[[ScriptedServer], None] = lambda server: None
    """Called after each time the run was asked for: the run goes on."""
    asked: int = 0
    """How often for a signal."""
    address: str = ""

    def _known(self, name: str, context: grpc.ServicerContext) -> None:
        if name in self.refused:
            context.abort(self.refused[name], f"run {name!r} is refused")
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
        self.asked += 1
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


@contextmanager
def scripted_server(address: str = "127.0.0.1:0") -> Iterator[ScriptedServer]:
    """One that answers until the end."""
    said = ScriptedServer()
    running = grpc.server(ThreadPoolExecutor(4))
    run_pb2_grpc.add_RunServiceServicer_to_server(said, running)
    signal_pb2_grpc.add_SignalServiceServicer_to_server(said, running)
    host, _, _ = address.rpartition(":")
    said.address = f"{host}:{running.add_insecure_port(address)}"
    running.start()
    yield said
    running.stop(None).wait()
