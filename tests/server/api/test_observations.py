"""SignalService.GetObservations: what a run kept, round by round."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from pathwatch.client import Client, PathwatchError, from_tensor
from pathwatch.server.api.age import ConnectionAge
from pathwatch.server.api.signals import SignalService
from pathwatch.server.config import Limits
from pathwatch.server.engine.engine import Engine
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.v1 import routing_pb2, signal_pb2


@pytest.fixture
def with_three_rounds(service: Any, make_batch: Any, eventually: Any) -> Any:
    """A server whose run `run` kept the rounds of steps 10, 20 and 30."""
    service.create(keep_observations=True)
    stream = service.stream()
    stream.hello()
    for step in (10, 20, 30):
        stream.send(make_batch(step))
        last = stream.send(routing_pb2.Watermark(step=step))
    assert stream.await_ack(last) == []
    eventually(lambda: service.get().closed_step == 30)
    stream.finish()
    return service


def test_rounds_come_in_step_order(with_three_rounds: Any, make_batch: Callable[..., Any]) -> None:
    stub = with_three_rounds.signals

    def steps(**asked: int) -> list[int]:
        request = signal_pb2.GetObservationsRequest(run="run", **asked)
        return [response.round.step for response in stub.GetObservations(request, timeout=30)]

    assert steps() == steps(after_step=-1) == [10, 20, 30]
    assert steps(after_step=10) == [20, 30]
    assert steps(after_step=30) == []


def test_the_client_reads_them(with_three_rounds: Any, make_batch: Callable[..., Any]) -> None:
    with Client(with_three_rounds.grpc_address) as client:
        rounds = list(client.get_observations("run", after_step=10))
        assert [round_.step for round_ in rounds] == [20, 30]
        (group,) = rounds[0].groups
        sent = make_batch(20)
        weights = from_tensor(group.weights)
        assert (weights.shape, weights.dtype) == ((8, 2, 4), np.float32)
        np.testing.assert_array_equal(weights, from_tensor(sent.weights))
        client.delete_run("run")
        with pytest.raises(PathwatchError, match="there is no run 'run'") as caught:
            list(client.get_observations("run"))
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


def test_a_run_that_keeps_nothing_says_how_to_make_one_that_does(service: Any) -> None:
    service.create()
    with (
        Client(service.grpc_address) as client,
        pytest.raises(PathwatchError, match=r"attach\(\.\.\., keep_observations=True\)") as caught,
    ):
        next(client.get_observations("run"))
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION


class AbortedError(Exception):
    """How a call ended."""


class CallContext:
    """As much of a call's context as a servicer uses."""

    async def abort(self, code: grpc.StatusCode, details: str, metadata: object) -> None:
        raise AbortedError(code, details)


def test_a_run_deleted_while_it_is_read_is_not_taken_for_whole(
    with_three_rounds: Any, tmp_path: Path
) -> None:
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    request = signal_pb2.GetObservationsRequest(run="run")

    async def read(engine: Engine, store: SqliteStore) -> None:
        rounds = SignalService(engine, store, Limits(), ConnectionAge(0)).GetObservations(
            request, CallContext()
        )  # type: ignore[arg-type]
        assert (await anext(rounds)).round.step == 10
        await asyncio.wrap_future(engine.delete_run("run"))
        await anext(rounds)

    with closing(SqliteStore(tmp_path / "copy")) as store:
        engine = Engine(store, limits=Limits())
        engine.start()
        try:
            with pytest.raises(AbortedError, match=r"NOT_FOUND.*there is no run 'run'"):
                asyncio.run(read(engine, store))
        finally:
            engine.stop()
