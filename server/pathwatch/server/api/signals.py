"""SignalService: what a run should do, and the history behind it."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any

import grpc

from pathwatch.server.api.age import ConnectionAge
from pathwatch.server.api.history import BriefHistory, to_message
from pathwatch.server.api.reading import Reading
from pathwatch.server.api.runs import find_run
from pathwatch.server.api.status import abort
from pathwatch.server.api.watchers import Watchers
from pathwatch.server.config import Limits
from pathwatch.server.engine.engine import Engine
from pathwatch.server.engine.kept_rounds import unpack_round
from pathwatch.server.engine.refusal import NEVER, Code, LimitError, RefusedError
from pathwatch.server.store.interface import Store
from pathwatch.v1 import run_pb2, signal_pb2, signal_pb2_grpc


class SignalService(signal_pb2_grpc.SignalServiceServicer):
    """The servicer; one instance, used on the event loop."""

    def __init__(self, engine: Engine, store: Store, limits: Limits, age: ConnectionAge) -> None:
        self._engine = engine
        self._store = store
        self._brief = BriefHistory(store)
        self._reading = Reading()
        self._limits = limits
        self._watchers = Watchers()
        engine.listen(self._watchers.notify)
        self._age = age
        self._draining = False

    async def GetSignal(
        self, request: signal_pb2.GetSignalRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> signal_pb2.GetSignalResponse:
        """See signal.proto."""
        view = await find_run(self._engine, request.run, context)
        return signal_pb2.GetSignalResponse(signal=view.signal(self._engine.now()))

    async def WatchSignals(
        self, request: signal_pb2.WatchSignalsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[signal_pb2.WatchSignalsResponse]:
        """See signal.proto. Going stale is a change too."""
        await find_run(self._engine, request.run, context)
        sent = signal_pb2.Signal()
        loop, age = asyncio.get_running_loop(), self._age.draw()
        ends_at = math.inf if age is None else loop.time() + age
        with self._watchers.watch(request.run) as changed:
            while not self._draining:
                changed.clear()
                gone = f"run {request.run!r} was deleted"
                view = await find_run(self._engine, request.run, context, gone=gone)
                now = self._engine.now()
                signal = view.signal(now)
                finished = view.run.state == run_pb2.RUN_STATE_FINISHED
                is_new = (signal.revision, signal.stale) != (sent.revision, sent.stale)
                # The last word is said with its newest numbers, changed or not.
                if is_new or (finished and signal != sent):
                    sent = signal
                    yield signal_pb2.WatchSignalsResponse(signal=signal)
                if finished:
                    return
                stale_at = view.stale_at()
                left = ends_at - loop.time()
                if left <= 0:
                    return  # it is time to connect anew
                wait = math.inf if signal.stale or stale_at is None else max(0.0, stale_at - now) + 0.01
                until = min(wait, left)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), None if until == math.inf else until)
        shutting_down = "the server is shutting down; connect again later"
        await abort(context, RefusedError(Code.UNAVAILABLE, shutting_down))

    async def GetMetrics(
        self, request: signal_pb2.GetMetricsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> signal_pb2.GetMetricsResponse:
        """See signal.proto."""
        view = await find_run(self._engine, request.run, context)
        # Steps count from 0; -2 takes in signals given before the first window, whose step is -1.
        after_step = request.after_step if request.HasField("after_step") else -1
        most = self._limits.answer_rows
        if request.max_points:
            if request.limit:
                both = "limit: cannot be given together with max_points, which chooses among all windows"
                await abort(context, RefusedError(Code.INVALID_ARGUMENT, both, "limit"))
            groups = [request.group] if request.group else view.run.groups
            async with self._reading.of(request.run, context):
                return await asyncio.to_thread(
                    self._brief.read,
                    view.run,
                    groups,
                    after_step=after_step if after_step >= 0 else -2,
                    points=max(2, min(request.max_points, most // (len(groups) + 1))),
                )
        async with self._reading.of(request.run, context):
            history = await asyncio.to_thread(
                self._store.history,
                request.run,
                after_step=after_step if after_step >= 0 else -2,
                group=request.group,
                limit=min(request.limit or most + 1, most + 1),
                signal_limit=most + 1,
            )
        if len(history.windows) + len(history.signals) > most:
            refusal = LimitError(
                "answer_rows",
                f"there are more than {most} windows and signals after step {after_step}; ask for one group, "
                "for later steps, or for fewer points (max_points)",
                "after_step",
                retry_seconds=NEVER,
            )
            self._engine.stats.count_limit(refusal)
            await abort(context, refusal)
        return signal_pb2.GetMetricsResponse(
            windows=[to_message(row) for row in history.windows],
            signals=[signal_pb2.Signal.FromString(row.signal) for row in history.signals],
            closed_step=history.closed_step,
        )

    async def GetObservations(
        self, request: signal_pb2.GetObservationsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[signal_pb2.GetObservationsResponse]:
        """See signal.proto."""
        view = await find_run(self._engine, request.run, context)
        if not view.run.config.keep_observations:
            forgotten = (
                f"run {request.run!r} does not keep its observations, and what is gone cannot be had again; "
                "create the run with keep_observations: attach(..., keep_observations=True), "
                "RunConfig(keep_observations=True) or `pathwatch replay --keep-observations`"
            )
            await abort(context, RefusedError(Code.FAILED_PRECONDITION, forgotten))
        after_step = request.after_step if request.HasField("after_step") else -1
        async with self._reading.of(request.run, context):
            kept = self._store.observations(request.run, after_step=after_step)
            while row := await asyncio.to_thread(next, kept, None):
                round_ = await asyncio.to_thread(unpack_round, row.observations)
                yield signal_pb2.GetObservationsResponse(round=round_)
        # Deleted meanwhile, or moved? Then what was sent is not the whole.
        await find_run(self._engine, request.run, context)

    def drain(self) -> None:
        """End all watches."""
        self._draining = True
        self._watchers.wake_all()
