"""A real gRPC server in this process whose manners a test can choose."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import pytest
from ports import lasting_port

from pathwatch.client import RoutingStream, reconnect
from pathwatch.client.endpoints import Endpoints
from pathwatch.v1 import (
    routing_pb2,
    routing_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
    signal_pb2,
    signal_pb2_grpc,
)

Eventually = Callable[[Callable[[], Any]], Any]


class Sidecar(
    routing_pb2_grpc.RoutingServiceServicer,
    run_pb2_grpc.RunServiceServicer,
    signal_pb2_grpc.SignalServiceServicer,
):
    """Remembers what it was sent, across restarts on the same port."""

    def __init__(self) -> None:
        self.options: list[tuple[str, int]] = []
        self.credentials: grpc.ServerCredentials | None = None
        self.acks = True
        self.drop_after: int | None = None
        """Ends the stream, unacknowledged, once this many messages came over it."""
        self.end_after: int | None = None
        """Ends the stream, all acknowledged, once this many messages came over it; 0 = before the first."""
        self.rejections: dict[str, routing_pb2.Rejection] = {}
        """What is answered to messages of a kind."""
        self.advice: list[routing_pb2.SamplingAdvice] = []
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.owner: str | None = None
        """Another server, to which every call about a run is sent; "" = not known which."""
        self.watches_end: str | None = None
        """Breaks off each watch after its first signal, naming this server; "" = none."""
        self.refused_sessions: set[str] = set()
        """Sessions whose hello is refused for ever."""
        self.refusal_metadata: tuple[tuple[str, bytes], ...] = ()
        self.hellos: list[routing_pb2.StreamHello] = []
        self.hello_times: list[float] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.messages: list[routing_pb2.StreamRoutingRequest] = []
        self.events: list[str] = []
        """Watermarks and checkpoints in the order of their arrival."""
        self.configs: list[run_pb2.CreateRunRequest] = []
        self.runs: dict[str, run_pb2.Run] = {}
        self.checkpoints: list[run_pb2.RegisterCheckpointRequest] = []
        self.checkpoint_refusals: list[tuple[grpc.StatusCode, str]] = []
        """Answers to the next registrations, before they succeed again."""
        self.signals: list[signal_pb2.Signal] = []
        self.requests: list[Any] = []
        self.host = "127.0.0.1"
        self.port = lasting_port()
        self._newest: dict[str, int] = {}
        """Largest sequence received by session."""
        self._changed = threading.Condition()
        self._down = threading.Event()
        self._server: grpc.Server | None = None
        self._pool: futures.ThreadPoolExecutor | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def start(self) -> None:
        self._down = threading.Event()
        self._pool = futures.ThreadPoolExecutor(16)
        self._server = grpc.server(self._pool, options=self.options)
        routing_pb2_grpc.add_RoutingServiceServicer_to_server(self, self._server)
        run_pb2_grpc.add_RunServiceServicer_to_server(self, self._server)
        signal_pb2_grpc.add_SignalServiceServicer_to_server(self, self._server)
        if self.credentials is None:
            self.port = self._server.add_insecure_port(self.address)
        else:
            self.port = self._server.add_secure_port(self.address, self.credentials)
        self._server.start()

    def stop(self) -> None:
        """Die: every call under way breaks."""
        if self._server is None:
            return
        self._down.set()
        with self._changed:
            self._changed.notify_all()
        self._server.stop(None).wait()
        self._pool.shutdown()
        self._server = None

    def give(self, signal: signal_pb2.Signal) -> None:
        with self._changed:
            self.signals.append(signal)
            self._changed.notify_all()

    def move(self, owner: str) -> None:
        """The run is another server's from now on."""
        with self._changed:
            self.owner = owner
            self._changed.notify_all()

    def sequences(self) -> list[int]:
        return [message.sequence for message in self.messages]

    def received(self, kind: str) -> list[Any]:
        """Payloads of a kind, each sequence once."""
        return list(
            {
                message.sequence: getattr(message, kind)
                for message in self.messages
                if message.WhichOneof("payload") == kind
            }.values()
        )

    def StreamRouting(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        down = self._down
        self.metadata.append(dict(context.invocation_metadata()))
        self._point_to_owner(context)
        if self.refusal is not None:
            self.hello_times.append(time.monotonic())
            context.set_trailing_metadata(self.refusal_metadata)
            context.abort(*self.refusal)
        first = next(requests, None)
        if first is None:  # cut off before it had said anything
            return
        hello = first.hello
        self.hello_times.append(time.monotonic())
        self.hellos.append(hello)
        if hello.session in self.refused_sessions:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the attempt is over")
        yield routing_pb2.StreamRoutingResponse(advice=self.advice)
        if self.end_after == 0:
            return
        for count, message in enumerate(requests, start=1):
            if down.is_set():
                return
            self._point_to_owner(context)
            kind = message.WhichOneof("payload")
            self.messages.append(message)
            self._newest[hello.session] = max(self._newest.get(hello.session, 0), message.sequence)
            if kind == "watermark":
                self.events.append(f"watermark {message.watermark.step}")
            if self.drop_after is not None and count >= self.drop_after:
                context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
            if self.acks:
                response = routing_pb2.StreamRoutingResponse(acked_sequence=message.sequence)
                if kind in self.rejections:
                    rejection = response.rejections.add()
                    rejection.CopyFrom(self.rejections[kind])
                    rejection.sequence = message.sequence
                yield response
            if self.end_after is not None and count >= self.end_after:
                return

    def _answer(self, request: Any, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self._point_to_owner(context)

    def _point_to_owner(self, context: grpc.ServicerContext) -> None:
        if self.owner is not None:
            context.set_trailing_metadata((("pathwatch-owner", self.owner),))
            where = f"served by {self.owner}; connect there" if self.owner else "another server's"
            context.abort(grpc.StatusCode.UNAVAILABLE, f"run 'run' is {where}")

    def _run(self, name: str, context: grpc.ServicerContext) -> run_pb2.Run:
        if name not in self.runs:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no run {name!r}")
        return self.runs[name]

    def ValidateRun(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._answer(request, context)
        violations = [] if request.config.topology.layers else [run_pb2.Violation(field="config.topology")]
        return run_pb2.ValidateRunResponse(violations=violations)

    def CreateRun(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._answer(request, context)
        self.configs.append(request)
        created = request.name not in self.runs
        run = run_pb2.Run(name=request.name, config=request.config, attempt=request.attempt)
        self.runs.setdefault(request.name, run)
        return run_pb2.CreateRunResponse(run=self.runs[request.name], created=created)

    def GetRun(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._answer(request, context)
        return run_pb2.GetRunResponse(run=self._run(request.name, context))

    def ListRuns(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._answer(request, context)
        return run_pb2.ListRunsResponse(runs=self.runs.values())

    def FinishRun(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._answer(request, context)
        run = self._run(request.name, context)
        run.state = run_pb2.RUN_STATE_FINISHED
        return run_pb2.FinishRunResponse(run=run)

    def DeleteRun(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._answer(request, context)
        del self.runs[self._run(request.name, context).name]
        return run_pb2.DeleteRunResponse()

    def RegisterCheckpoint(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._answer(request, context)
        if self.checkpoint_refusals:
            context.set_trailing_metadata(self.refusal_metadata)
            context.abort(*self.checkpoint_refusals.pop(0))
        self.checkpoints.append(request)
        self.events.append(f"checkpoint {request.checkpoint.step}")
        return run_pb2.RegisterCheckpointResponse()

    def RankCheckpoints(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._answer(request, context)
        ranked = [
            run_pb2.RankedCheckpoint(checkpoint=c.checkpoint, score=-c.checkpoint.step)
            for c in self.checkpoints
            if c.run == request.run
        ]
        ranked.sort(key=lambda entry: entry.score)
        return run_pb2.RankCheckpointsResponse(checkpoints=ranked[: request.limit or None])

    def GetSignal(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._answer(request, context)
        if not self.signals:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no run {request.run!r}")
        return signal_pb2.GetSignalResponse(signal=self.signals[-1])

    def WatchSignals(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        down = self._down
        context.add_callback(self._wake)
        self._answer(request, context)
        sent = max(0, len(self.signals) - 1)
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda sent=sent: (
                        len(self.signals) > sent
                        or down.is_set()
                        or self.owner is not None
                        or not context.is_active()
                    )
                )
            self._point_to_owner(context)
            if down.is_set() or not context.is_active():
                context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
            signal = self.signals[sent]
            sent += 1
            yield signal_pb2.WatchSignalsResponse(signal=signal)
            if self.watches_end is not None:
                context.set_trailing_metadata(
                    (("pathwatch-owner", self.watches_end),) if self.watches_end else ()
                )
                context.abort(grpc.StatusCode.UNAVAILABLE, "broken off")
            run = self.runs.get(request.run)
            if run is not None and run.state == run_pb2.RUN_STATE_FINISHED:
                return

    def GetMetrics(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._answer(request, context)
        windows = [
            signal_pb2.Window(group="math", step=step, metrics={"path_distance": 40.0 - step})
            for step in range(5)
            if step > request.after_step
        ]
        return signal_pb2.GetMetricsResponse(windows=windows[: request.limit or None], closed_step=4)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


@pytest.fixture
def sidecar() -> Iterator[Sidecar]:
    """A server that runs; `stop` and `start` take it down and up again on the same port."""
    server = Sidecar()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def sidecars() -> Iterator[list[Sidecar]]:
    """Three in the order in which clients of run "run" ask them; all run."""
    servers = [Sidecar() for _ in range(3)]
    for server in servers:
        server.start()
    by_address = {server.address: server for server in servers}
    yield [by_address[address] for address in Endpoints(",".join(by_address), "run").candidates()]
    for server in servers:
        server.stop()


@pytest.fixture
def eventually() -> Eventually:
    """Waits until a condition holds and returns its value; fails after a minute."""

    def wait(condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 60
        while not (value := condition()):
            assert time.monotonic() < deadline, "condition did not come true within a minute"
            time.sleep(0.005)
        return value

    return wait


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Every wait between two attempts, as (failures in a row, refused); none of them takes time."""
    asked = []

    def delay(failures: int, refused: bool, several: bool) -> float:
        asked.append((failures, refused))
        return 0.0

    monkeypatch.setattr(reconnect, "_delay", delay)
    return asked


@pytest.fixture
def threads_left() -> Callable[[], list[str]]:
    """Names of the stream's threads that the test left; those of tests before may still be ending."""
    before = set(threading.enumerate())

    def left() -> list[str]:
        threads = set(threading.enumerate()) - before
        return sorted(thread.name for thread in threads if thread.name.startswith("pathwatch"))

    return left


@pytest.fixture
def streams() -> Iterator[Callable[..., RoutingStream]]:
    """Makes streams of run "run" and closes them after the test."""
    made: list[RoutingStream] = []

    def make(address: str, **options: Any) -> RoutingStream:
        made.append(RoutingStream(address, run="run", **options))
        return made[-1]

    yield make
    for stream in made:
        stream.close(timeout=0.5)


@pytest.fixture
def observe() -> Callable[..., None]:
    """Sends plain observations: 2 layers, 4 experts, ids from 0."""

    def send(stream: RoutingStream, step: int, n: int = 3, group: str = "math") -> None:
        stream.observe(
            step=step,
            group=group,
            sample_ids=np.arange(n),
            weights=np.full((n, 2, 4), 0.25, np.float32),
            losses=np.full(n, 1.5),
        )

    return send
