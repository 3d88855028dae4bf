"""A call that a server ends while it is written to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from pathwatch.server.relay import stream_call
from pathwatch.server.relay.stream_call import greet
from pathwatch.server.relay.upstream import END
from pathwatch.v1 import routing_pb2, routing_pb2_grpc

TRIES = 100
HELLO = routing_pb2.StreamHello(run="run")
LARGE = routing_pb2.StreamRoutingRequest(sequence=1)
LARGE.batch.group = "x" * 500_000


class Abrupt(routing_pb2_grpc.RoutingServiceServicer):
    """Answers as often as it is told, and reads nothing: writing to it fails at some time or other."""

    def __init__(self) -> None:
        self.answers = 0
        self.refuses = True

    def StreamRouting(self, requests: Any, context: Any) -> Iterator[routing_pb2.StreamRoutingResponse]:
        for sequence in range(self.answers):
            yield routing_pb2.StreamRoutingResponse(acked_sequence=sequence)
        if self.refuses:
            context.set_trailing_metadata((("why", "because"),))
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")


@pytest.fixture
def abrupt(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Abrupt, str]]:
    monkeypatch.setattr(stream_call, "_PATIENCE_SECONDS", 30.0)  # the machine of the test may be slow
    servicer = Abrupt()
    server = grpc.server(ThreadPoolExecutor(2))
    routing_pb2_grpc.add_RoutingServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(None).wait()


async def ending(address: str) -> tuple[int, Any]:
    """How many answers came, and then what, of a call that is written to until it is over."""

    async def converse(channel: grpc.aio.Channel) -> tuple[int, Any]:
        call, answer = await greet(channel, HELLO, ())

        async def write() -> None:
            for _ in range(3):
                await call.write(LARGE)

        writing = asyncio.create_task(write())
        answers = 0
        while answer is not END:
            answers += 1
            answer = await call.read()
        await writing
        return answers, END

    async with grpc.aio.insecure_channel(address) as channel:
        try:
            return await converse(channel)
        except grpc.aio.AioRpcError as error:
            return 0, error


def test_it_ends_as_the_server_says(abrupt: tuple[Abrupt, str]) -> None:
    async def main() -> None:
        for _ in range(TRIES):
            _, error = await ending(abrupt[1])
            assert (error.code(), error.details()) == (grpc.StatusCode.UNAUTHENTICATED, "who are you?")
            assert dict(error.trailing_metadata())["why"] == "because"

    asyncio.run(asyncio.wait_for(main(), 60))


def test_answers_before_the_end_are_heard(abrupt: tuple[Abrupt, str]) -> None:
    servicer, address = abrupt
    servicer.answers, servicer.refuses = 20, False

    async def main() -> None:
        for _ in range(TRIES // 10):
            assert await ending(address) == (20, END)

    asyncio.run(asyncio.wait_for(main(), 60))
