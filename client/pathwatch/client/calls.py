"""The synchronous client of schedulers and tools."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import grpc

from pathwatch.client.channel import Credentials
from pathwatch.client.errors import PathwatchError
from pathwatch.client.routed_calls import RoutedCalls
from pathwatch.v1 import run_pb2, signal_pb2


class Client:
    """Calls to a server, or to those of several that have the runs, one at a time or from several threads.

    Where a server is away or names another, a call is made again there, within its timeout: each may be made
    twice, and what has happened already happens once. A second `delete_run` says NOT_FOUND.

    Every method raises `PathwatchError`, whose `code` is the gRPC status code and whose text is one line.
    """

    def __init__(
        self, address: str, *, timeout: float = 10.0, credentials: Credentials | None = None
    ) -> None:
        """`address` is HOST:PORT, or where the servers are of which each run has one (docs/scale.md); each
        call may take `timeout` seconds. Connects with the first call."""
        self._calls = RoutedCalls(address, credentials, timeout)

    def wait_ready(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for the server, or one of several, to accept a connection."""
        self._calls.wait_ready(timeout)

    def validate_run(self, name: str, config: run_pb2.RunConfig) -> Sequence[run_pb2.Violation]:
        """All problems that would keep the run from being created; empty = none."""
        request = run_pb2.ValidateRunRequest(name=name, config=config)
        response: run_pb2.ValidateRunResponse = self._calls.unary(
            name, lambda at: at.runs.ValidateRun, request
        )
        return response.violations

    def create_run(self, name: str, config: run_pb2.RunConfig, *, attempt: int = 0) -> run_pb2.Run:
        """Create the run, or return the existing one of the same configuration; a higher attempt starts."""
        request = run_pb2.CreateRunRequest(name=name, config=config, attempt=attempt)
        response: run_pb2.CreateRunResponse = self._calls.unary(name, lambda at: at.runs.CreateRun, request)
        return response.run

    def get_run(self, name: str) -> run_pb2.Run:
        """The run of that name."""
        request = run_pb2.GetRunRequest(name=name)
        response: run_pb2.GetRunResponse = self._calls.unary(name, lambda at: at.runs.GetRun, request)
        return response.run

    def list_runs(self) -> Sequence[run_pb2.Run]:
        """All runs, newest first, from any of the servers."""
        request = run_pb2.ListRunsRequest()
        response: run_pb2.ListRunsResponse = self._calls.unary("", lambda at: at.runs.ListRuns, request)
        return response.runs

    def finish_run(self, name: str) -> run_pb2.Run:
        """End the run: its open windows are closed, no more data is taken."""
        request = run_pb2.FinishRunRequest(name=name)
        response: run_pb2.FinishRunResponse = self._calls.unary(name, lambda at: at.runs.FinishRun, request)
        return response.run

    def delete_run(self, name: str) -> None:
        """Remove the run and all its data."""
        self._calls.unary(name, lambda at: at.runs.DeleteRun, run_pb2.DeleteRunRequest(name=name))

    def register_checkpoint(self, run: str, *, step: int, tag: str = "", attempt: int = 0) -> None:
        """Make a saved checkpoint known. Idempotent per (attempt, step)."""
        checkpoint = run_pb2.Checkpoint(step=step, tag=tag, attempt=attempt)
        request = run_pb2.RegisterCheckpointRequest(run=run, checkpoint=checkpoint)
        self._calls.unary(run, lambda at: at.runs.RegisterCheckpoint, request)

    def rank_checkpoints(
        self, run: str, *, group: str = "", limit: int = 0
    ) -> Sequence[run_pb2.RankedCheckpoint]:
        """Registered checkpoints, best first, for a group ("" = overall); at most `limit` (0 = all)."""
        request = run_pb2.RankCheckpointsRequest(run=run, group=group, limit=limit)
        response: run_pb2.RankCheckpointsResponse = self._calls.unary(
            run, lambda at: at.runs.RankCheckpoints, request
        )
        return response.checkpoints

    def get_signal(self, run: str) -> signal_pb2.Signal:
        """What the run should do, as of now."""
        request = signal_pb2.GetSignalRequest(run=run)
        response: signal_pb2.GetSignalResponse = self._calls.unary(
            run, lambda at: at.signals.GetSignal, request
        )
        return response.signal

    def watch_signals(self, run: str, *, timeout: float | None = None) -> Iterator[signal_pb2.Signal]:
        """The newest signal at once, then each change; ends with the run or after `timeout` seconds.

        Among several servers it goes on where another one takes the run over.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        request = signal_pb2.WatchSignalsRequest(run=run)
        last = None
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                for response in self._calls.stream(
                    run, lambda at: at.signals.WatchSignals, request, timeout=left, resumes=True
                ):
                    if response.signal != last:
                        yield response.signal
                    last = response.signal
            except PathwatchError as error:
                if deadline is not None and error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
                    return
                raise
            # Servers end connections of some age: that is not the end of the run.
            if self.get_run(run).state == run_pb2.RUN_STATE_FINISHED:
                signal = self.get_signal(run)
                if signal != last:
                    yield signal
                return

    def get_metrics(
        self, run: str, *, after_step: int = -1, group: str = "", limit: int = 0, max_points: int = 0
    ) -> signal_pb2.GetMetricsResponse:
        """Closed windows and signals of steps above `after_step`.

        Of one group ("" = all), at most `limit` windows, the first (0 = all). With `max_points` in brief:
        at most so many windows of each group, evenly over the steps and with every change of phase, and the
        signals whose action or stop is new; `stride` of the answer says how many windows each stands for.
        """
        request = signal_pb2.GetMetricsRequest(
            run=run, after_step=after_step, group=group, limit=limit, max_points=max_points
        )
        response: signal_pb2.GetMetricsResponse = self._calls.unary(
            run, lambda at: at.signals.GetMetrics, request
        )
        return response

    def get_observations(self, run: str, *, after_step: int = -1) -> Iterator[signal_pb2.RoundObservations]:
        """What the closed windows of steps above `after_step` held, round by round in step order.

        Only of runs created with `RunConfig(keep_observations=True)`; arrays by `from_tensor`.
        """
        request = signal_pb2.GetObservationsRequest(run=run, after_step=after_step)
        for response in self._calls.stream(run, lambda at: at.signals.GetObservations, request):
            yield response.round

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._calls.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
