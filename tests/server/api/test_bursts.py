"""Very many calls at once, as when a server comes back to a fleet."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from pathwatch.server.api import channel_options
from pathwatch.server.api.runs import RunService
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig
from pathwatch.v1 import run_pb2, run_pb2_grpc

CALLS = 3000
BUSY_SECONDS = 2.5
"""How long a server does not get round to any call."""


@pytest.mark.slow
def test_of_calls_that_come_at_once_each_is_answered_or_told_to_wait(tmp_path: Path) -> None:
    with BackgroundServer(ServerConfig(data=tmp_path)) as server:
        codes = asyncio.run(burst(server.grpc_address, CALLS))
    assert codes.total() == CALLS
    # Never CANCELLED, of which no caller knows what to make.
    assert set(codes) <= {"OK", "RESOURCE_EXHAUSTED"}, codes


@pytest.fixture
def ends_of_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], set[str]]:
    """Starts a server, and gives how calls end that it does not get round to for a while."""
    list_runs = RunService.ListRuns
    is_busy = threading.Event()

    async def busy_at_first(*arguments: Any) -> run_pb2.ListRunsResponse:
        if not is_busy.is_set():
            is_busy.set()
            time.sleep(BUSY_SECONDS)  # on the event loop
        return await list_runs(*arguments)

    async def ends(address: str) -> set[str]:
        first = asyncio.create_task(burst(address, 1))
        await asyncio.to_thread(is_busy.wait, 60)
        codes = await burst(address, 20)
        return {*codes, *await first}

    def start() -> set[str]:
        is_busy.clear()
        with BackgroundServer(ServerConfig(data=tmp_path)) as server:
            return asyncio.run(ends(server.grpc_address))

    monkeypatch.setattr(RunService, "ListRuns", busy_at_first)
    return start


@pytest.mark.slow
def test_calls_wait_for_a_busy_server_and_are_not_cancelled_for_it(
    ends_of_waiting: Callable[[], set[str]], eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default gRPC cancels those that it has not got round to after 30 seconds. That the option which is
    set is the one that does it is shown by a small value."""
    assert channel_options.UNTAKEN_SECONDS >= 600
    assert ends_of_waiting() == {"OK"}
    monkeypatch.setattr(channel_options, "UNTAKEN_SECONDS", 1)
    # Again where they were slow to come, and so had not waited for a second.
    eventually(lambda: ends_of_waiting() == {"OK", "CANCELLED"})


async def burst(address: str, calls: int) -> Counter[str]:
    """How all ended."""

    async def call(stub: run_pb2_grpc.RunServiceStub) -> str:
        try:
            await stub.ListRuns(run_pb2.ListRunsRequest())
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    async with grpc.aio.insecure_channel(address) as channel:
        stub = run_pb2_grpc.RunServiceStub(channel)  # type: ignore[no-untyped-call]
        return Counter(await asyncio.gather(*(call(stub) for _ in range(calls))))
