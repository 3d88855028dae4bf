"""Which scope opens which method. A method that is not here is closed to everyone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from pathwatch.server.access.tokens import Scope
from pathwatch.v1 import run_pb2

RunOf = Callable[[Any], str]
MayUse = Callable[[str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Who may call a method."""

    scopes: frozenset[Scope]
    """One of them is enough; empty = open to everyone."""
    run: RunOf | None = None
    """Name of the run that a request, or the first message of a stream, is about; None = about none."""
    narrow: Callable[[Any, MayUse], Message] | None = None
    """What of a response is shown to those who may use some runs only."""

    @property
    def audited(self) -> bool:
        """Whether calls are written down that were let through."""
        return Scope.CONTROL in self.scopes


def _runs_of(response: run_pb2.ListRunsResponse, may_use: MayUse) -> run_pb2.ListRunsResponse:
    return run_pb2.ListRunsResponse(runs=[run for run in response.runs if may_use(run.name)])


def _of_name(request: Any) -> str:
    return str(request.name)


def _of_run(request: Any) -> str:
    return str(request.run)


def _of_hello(request: Any) -> str:
    return str(request.hello.run)


OPEN: frozenset[Scope] = frozenset()
INGEST = frozenset({Scope.INGEST})
READ = frozenset({Scope.READ})
CONTROL = frozenset({Scope.CONTROL})
# What a job asks about the run it sends to: its signals, its attempt, its best checkpoint.
FOLLOW = INGEST | READ

RULES: Mapping[str, Rule] = {
    "/pathwatch.v1.RoutingService/StreamRouting": Rule(scopes=INGEST, run=_of_hello),
    "/pathwatch.v1.RunService/ValidateRun": Rule(scopes=FOLLOW, run=_of_name),
    # A job creates its run itself, and its next attempt, as often as it connects.
    "/pathwatch.v1.RunService/CreateRun": Rule(scopes=INGEST, run=_of_name),
    "/pathwatch.v1.RunService/GetRun": Rule(scopes=FOLLOW, run=_of_name),
    "/pathwatch.v1.RunService/ListRuns": Rule(scopes=READ, narrow=_runs_of),
    "/pathwatch.v1.RunService/FinishRun": Rule(scopes=CONTROL, run=_of_name),
    "/pathwatch.v1.RunService/DeleteRun": Rule(scopes=CONTROL, run=_of_name),
    "/pathwatch.v1.RunService/RegisterCheckpoint": Rule(scopes=INGEST, run=_of_run),
    "/pathwatch.v1.RunService/RankCheckpoints": Rule(scopes=FOLLOW, run=_of_run),
    "/pathwatch.v1.SignalService/GetSignal": Rule(scopes=FOLLOW, run=_of_run),
    "/pathwatch.v1.SignalService/WatchSignals": Rule(scopes=FOLLOW, run=_of_run),
    "/pathwatch.v1.SignalService/GetMetrics": Rule(scopes=READ, run=_of_run),
    "/pathwatch.v1.SignalService/GetObservations": Rule(scopes=READ, run=_of_run),
    "/grpc.health.v1.Health/Check": Rule(scopes=OPEN),
    "/grpc.health.v1.Health/List": Rule(scopes=OPEN),
    "/grpc.health.v1.Health/Watch": Rule(scopes=OPEN),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rule(scopes=READ),
}
