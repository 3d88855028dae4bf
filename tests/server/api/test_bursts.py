"""Very many calls at once, as when a server comes back to a fleet."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import grpc
import pytest

from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig
from pathwatch.v1 import run_pb2, run_pb2_grpc

CALLS = 3000


@pytest.mark.slow
def test_of_calls_that_come_at_once_each_is_answered_or_told_to_wait(tmp_path: Path) -> None:
    with BackgroundServer(ServerConfig(data=tmp_path)) as server:
        codes = asyncio.run(burst(server.grpc_address))
    assert codes.total() == CALLS
    # Never CANCELLED, of which no caller knows what to make.
    assert set(codes) <= {"OK", "RESOURCE_EXHAUSTED"}, codes


async def burst(address: str) -> Counter[str]:
    """How all ended."""

    async def call(stub: run_pb2_grpc.RunServiceStub) -> str:
        try:
            await stub.ListRuns(run_pb2.ListRunsRequest())
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    async with grpc.aio.insecure_channel(address) as channel:
        stub = run_pb2_grpc.RunServiceStub(channel)  # type: ignore[no-untyped-call]
        return Counter(await asyncio.gather(*(call(stub) for _ in range(CALLS))))
