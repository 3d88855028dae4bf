"""The synchronous client of schedulers and tools."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from pathwatch.client.channel import Credentials, open_channel
from pathwatch.client.errors import PathwatchError, explain
from pathwatch.v1 import run_pb2, run_pb2_grpc, signal_pb2, signal_pb2_grpc


class Client:
    """Calls to one server, one at a time or from several threads.

    Every method raises `PathwatchError`, whose `code` is the gRPC status code and whose text is one line.
    """

    def __init__(
        self, address: str, *, timeout: float = 10.0, credentials: Credentials | None = None
    ) -> None:
        """`address` is HOST:PORT; each call may take `timeout` seconds. Connects with the first call."""
        self._address = address
        self._timeout = timeout
        try:
            self._channel = open_channel(address, credentials)
        except (ValueError, OSError) as error:
            raise PathwatchError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        self._runs = run_pb2_grpc.RunServiceStub(self._channel)
        self._signals = signal_pb2_grpc.SignalServiceStub(self._channel)

    def wait_ready(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for the server to accept a connection."""
        try:
            grpc.channel_ready_future(self._channel).result(timeout=timeout)
        except grpc.FutureTimeoutError as error:
            raise PathwatchError(
                grpc.StatusCode.UNAVAILABLE,
                f"no pathwatch server at {self._address} (not reachable within {timeout:g} s)",
            ) from error

    def validate_run(self, name: str, config: run_pb2.RunConfig) -> Sequence[run_pb2.Violation]:
        """All problems that would keep the run from being created; empty = none."""
        request = run_pb2.ValidateRunRequest(name=name, config=config)
        response: run_pb2.ValidateRunResponse = self._call(self._runs.ValidateRun, request, self._timeout)
        return response.violations

    def create_run(self, name: str, config: run_pb2.RunConfig, *, attempt: int = 0) -> run_pb2.Run:
        """Create the run, or return the existing one of the same configuration; a higher attempt starts."""
        request = run_pb2.CreateRunRequest(name=name, config=config, attempt=attempt)
        response: run_pb2.CreateRunResponse = self._call(self._runs.CreateRun, request, self._timeout)
        return response.run

    def get_run(self, name: str) -> run_pb2.Run:
        """The run of that name."""
        response: run_pb2.GetRunResponse = self._call(
            self._runs.GetRun, run_pb2.GetRunRequest(name=name), self._timeout
        )
        return response.run

    def list_runs(self) -> Sequence[run_pb2.Run]:
        """All runs, newest first."""
        response: run_pb2.ListRunsResponse = self._call(
            self._runs.ListRuns, run_pb2.ListRunsRequest(), self._timeout
        )
        return response.runs

    def finish_run(self, name: str) -> run_pb2.Run:
        """End the run: its open windows are closed, no more data is taken."""
        request = run_pb2.FinishRunRequest(name=name)
        response: run_pb2.FinishRunResponse = self._call(self._runs.FinishRun, request, self._timeout)
        return response.run

    def delete_run(self, name: str) -> None:
        """Remove the run and all its data."""
        self._call(self._runs.DeleteRun, run_pb2.DeleteRunRequest(name=name), self._timeout)

    def register_checkpoint(self, run: str, *, step: int, tag: str = "", attempt: int = 0) -> None:
        """Make a saved checkpoint known. Idempotent per (attempt, step)."""
        checkpoint = run_pb2.Checkpoint(step=step, tag=tag, attempt=attempt)
        request = run_pb2.RegisterCheckpointRequest(run=run, checkpoint=checkpoint)
        self._call(self._runs.RegisterCheckpoint, request, self._timeout)

    def rank_checkpoints(
        self, run: str, *, group: str = "", limit: int = 0
    ) -> Sequence[run_pb2.RankedCheckpoint]:
        """Registered checkpoints, best first, for a group ("" = overall); at most `limit` (0 = all)."""
        request = run_pb2.RankCheckpointsRequest(run=run, group=group, limit=limit)
        response: run_pb2.RankCheckpointsResponse = self._call(
            self._runs.RankCheckpoints, request, self._timeout
        )
        return response.checkpoints

    def get_signal(self, run: str) -> signal_pb2.Signal:
        """What the run should do, as of now."""
        request = signal_pb2.GetSignalRequest(run=run)
        response: signal_pb2.GetSignalResponse = self._call(self._signals.GetSignal, request, self._timeout)
        return response.signal

    def watch_signals(self, run: str, *, timeout: float | None = None) -> Iterator[signal_pb2.Signal]:
        """The newest signal at once, then each change; ends with the run or after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        last = None
        while True:
            try:
                for signal in self._watch_once(run, deadline):
                    if signal != last:
                        yield signal
                    last = signal
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

    def _watch_once(self, run: str, deadline: float | None) -> Iterator[signal_pb2.Signal]:
        """The signals of one call, until the server ends it, or else the deadline (monotonic seconds)."""
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        call = self._call(self._signals.WatchSignals, signal_pb2.WatchSignalsRequest(run=run), timeout)
        try:
            for response in call:
                yield response.signal
        except grpc.RpcError as error:
            raise explain(error, self._address) from error
        finally:
            call.cancel()

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
        response: signal_pb2.GetMetricsResponse = self._call(self._signals.GetMetrics, request, self._timeout)
        return response

    def get_observations(self, run: str, *, after_step: int = -1) -> Iterator[signal_pb2.RoundObservations]:
        """What the closed windows of steps above `after_step` held, round by round in step order.

        Only of runs created with `RunConfig(keep_observations=True)`; arrays by `from_tensor`.
        """
        request = signal_pb2.GetObservationsRequest(run=run, after_step=after_step)
        call = self._call(self._signals.GetObservations, request, None)
        try:
            for response in call:
                yield response.round
        except grpc.RpcError as error:
            raise explain(error, self._address) from error
        finally:
            call.cancel()

    def close(self) -> None:
        """Close the connection; calls under way are cancelled."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: Callable[..., Any], request: object, timeout: float | None) -> Any:
        try:
            return method(request, timeout=timeout)
        except grpc.RpcError as error:
            raise explain(error, self._address, timeout) from error
        except ValueError as error:  # what grpc raises on a closed channel
            raise PathwatchError(grpc.StatusCode.CANCELLED, "this pathwatch client is closed") from error
