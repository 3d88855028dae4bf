"""RunService: runs and their checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Set
from typing import Any

import grpc

from pathwatch.server.api.status import abort, answer
from pathwatch.server.api.stored_runs import StoredRuns
from pathwatch.server.config import Limits
from pathwatch.server.engine.engine import Engine
from pathwatch.server.engine.refusal import Code, RefusedError
from pathwatch.server.engine.run_config import plugin_violations, violations
from pathwatch.server.engine.view import RunView
from pathwatch.server.phases.verdict import Checkpoint
from pathwatch.server.store.interface import StoreError, StoreReader
from pathwatch.v1 import run_pb2, run_pb2_grpc


async def find_run(
    engine: Engine, name: str, context: grpc.aio.ServicerContext[Any, Any], *, gone: str = ""
) -> RunView:
    """A run as of the last commit. NOT_FOUND ends the call, and so does another server that has it.

    `gone` is what to say instead where there is none.
    """
    view = engine.views.get(name)
    if view is not None:
        return view
    try:
        return await asyncio.wrap_future(engine.adopt(name))
    except RefusedError as refusal:
        is_gone = gone and refusal.code is Code.NOT_FOUND
        await abort(context, RefusedError(Code.NOT_FOUND, gone) if is_gone else refusal)


class RunService(run_pb2_grpc.RunServiceServicer):
    """The servicer; one instance, used on the event loop."""

    def __init__(self, engine: Engine, store: StoreReader, limits: Limits) -> None:
        self._engine = engine
        self._stored = StoredRuns(store)
        self._limits = limits

    async def ValidateRun(
        self, request: run_pb2.ValidateRunRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.ValidateRunResponse:
        """See run.proto."""
        found = violations(request.name, request.config, self._limits)
        found += await asyncio.to_thread(plugin_violations, request.config)
        return run_pb2.ValidateRunResponse(violations=found)

    async def CreateRun(
        self, request: run_pb2.CreateRunRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.CreateRunResponse:
        """See run.proto."""
        run, created = await answer(
            context, self._engine.create_run(request.name, request.config, request.attempt)
        )
        return run_pb2.CreateRunResponse(run=run, created=created)

    async def GetRun(
        self, request: run_pb2.GetRunRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.GetRunResponse:
        """See run.proto."""
        view = await find_run(self._engine, request.name, context)
        return run_pb2.GetRunResponse(run=view.run)

    async def ListRuns(
        self, request: run_pb2.ListRunsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.ListRunsResponse:
        """See run.proto."""
        found = [view.run for view in self._engine.views.values()]
        if self._engine.leases is not None:
            found += await self._runs_of_others({run.name for run in found}, context)
        runs = [run for run in found if request.state in (run_pb2.RUN_STATE_UNSPECIFIED, run.state)]
        runs.sort(key=lambda run: (-run.created_at.ToNanoseconds(), run.name))
        return run_pb2.ListRunsResponse(runs=runs)

    async def _runs_of_others(
        self, own: Set[str], context: grpc.aio.ServicerContext[Any, Any]
    ) -> list[run_pb2.Run]:
        try:
            return await asyncio.to_thread(self._stored.besides, own)
        except StoreError:
            away = "the runs of other servers cannot be read just now; try again"
            await abort(context, RefusedError(Code.UNAVAILABLE, away))

    async def FinishRun(
        self, request: run_pb2.FinishRunRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.FinishRunResponse:
        """See run.proto."""
        run = await answer(context, self._engine.finish_run(request.name))
        return run_pb2.FinishRunResponse(run=run)

    async def DeleteRun(
        self, request: run_pb2.DeleteRunRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.DeleteRunResponse:
        """See run.proto."""
        await answer(context, self._engine.delete_run(request.name))
        return run_pb2.DeleteRunResponse()

    async def RegisterCheckpoint(
        self, request: run_pb2.RegisterCheckpointRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.RegisterCheckpointResponse:
        """See run.proto."""
        sent = request.checkpoint
        checkpoint = Checkpoint(step=sent.step, tag=sent.tag, attempt=sent.attempt)
        await answer(context, self._engine.register_checkpoint(request.run, checkpoint))
        return run_pb2.RegisterCheckpointResponse()

    async def RankCheckpoints(
        self, request: run_pb2.RankCheckpointsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> run_pb2.RankCheckpointsResponse:
        """See run.proto."""
        view = await find_run(self._engine, request.run, context)
        if request.group and request.group not in view.run.groups:
            known = ", ".join(view.run.groups) or "none yet"
            unknown = f"run {request.run!r} has no group {request.group!r}; its groups: {known}"
            await abort(context, RefusedError(Code.NOT_FOUND, unknown, "group"))
        ranked = await answer(
            context, self._engine.rank_checkpoints(request.run, request.group or None, request.limit)
        )
        return run_pb2.RankCheckpointsResponse(
            checkpoints=[
                run_pb2.RankedCheckpoint(
                    checkpoint=run_pb2.Checkpoint(
                        step=place.checkpoint.step,
                        tag=place.checkpoint.tag,
                        attempt=place.checkpoint.attempt,
                    ),
                    score=place.score,
                    reason=place.reason,
                )
                for place in ranked
            ]
        )
