"""One rank's stream through a relay."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import grpc

from pathwatch.server.api.flow import Flow
from pathwatch.server.api.routing import LARGE_BYTES, SHUTTING_DOWN
from pathwatch.server.api.shares import RunShare
from pathwatch.server.engine.checks import MAX_STEP
from pathwatch.server.engine.decode import Topology, group_problem
from pathwatch.server.engine.refusal import RefusedError
from pathwatch.server.relay.counts import RelayCounts
from pathwatch.server.relay.known import KnownRun
from pathwatch.server.relay.ledger import Ledger, Passed, SentRows
from pathwatch.server.relay.sifting import Sifted, sift
from pathwatch.server.relay.upstream import END
from pathwatch.v1 import routing_pb2

Request = routing_pb2.StreamRoutingRequest
Response = routing_pb2.StreamRoutingResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a stream shares with others."""

    run: KnownRun
    topology: Topology
    share: RunShare
    flow: Flow
    decoder: Executor
    counts: RelayCounts


class RankStream:
    """Passes messages up and answers down until either side ends. Used on the event loop.

    Three tasks: one reads what the rank sends as far as there is room, one sifts it and sends it on, one
    hears what the server answers.
    """

    def __init__(
        self, requests: AsyncIterator[Request], call: Any, first: Response, around: Surroundings
    ) -> None:
        """`call` is one of StreamRouting that has greeted a server; `first` is what that answered."""
        self._requests = requests
        self._call = call
        self._first = first
        self._around = around
        self._ledger = Ledger()
        self._known_sequence = first.acked_sequence
        self._watermark = -1
        self._came: asyncio.Queue[Request | None] = asyncio.Queue()
        self._events: asyncio.Queue[Response | None] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False

    async def serve(self) -> AsyncGenerator[Response, None]:
        """Answers for the rank. Raises AioRpcError as the server ended the stream, RefusedError as we do."""
        self._tasks = [asyncio.create_task(work()) for work in (self._read, self._send, self._hear)]
        reader, _, hearer = self._tasks
        reader.add_done_callback(lambda _: self._came.put_nowait(None))
        for task in self._tasks:
            task.add_done_callback(lambda _: self._events.put_nowait(None))
        if self._draining:
            reader.cancel()
        self._take_in(self._first)
        while True:
            answer = await self._events.get()
            if answer is not None:
                yield answer
            elif self._ledger.owes:
                yield self._ledger.tell(None)
            for task in self._tasks:
                if task.done() and not task.cancelled() and (error := task.exception()):
                    if task is hearer and not self._events.empty():
                        continue  # what it said before comes first
                    raise error
            if hearer.done() and self._events.empty():
                if self._draining:
                    raise RefusedError(SHUTTING_DOWN.code, SHUTTING_DOWN.message)
                return

    def drain(self) -> None:
        """End, for want of a relay, when everything read is acknowledged."""
        self._draining = True
        self.retire()

    def retire(self) -> None:
        """Read no more; end well when everything read is acknowledged. The rank connects anew."""
        if self._tasks:
            self._tasks[0].cancel()

    def close(self) -> None:
        """The stream is over."""
        for task in self._tasks:
            task.cancel()
        for message in self._ledger.open:
            if message.rows is not None:
                message.rows.window.answered(len(message.rows.sample_ids_N))
        self._around.flow.close()

    async def _read(self) -> None:
        async for request in self._requests:
            await self._around.flow.acquire(request.ByteSize())
            self._came.put_nowait(request)

    async def _send(self) -> None:
        # Where the server has ended the call, the task that hears says why.
        with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
            while (request := await self._came.get()) is not None:
                await self._pass_on(request)
            await self._call.done_writing()

    async def _hear(self) -> None:
        while (answer := await self._call.read()) is not END:
            self._take_in(answer)

    def _take_in(self, answer: Response) -> None:
        for advice in answer.advice:
            window = self._around.run.window(advice.group, advice.until_step)
            window.advise(advice.hash_threshold)
        self._settle(self._ledger.heed(answer))
        self._events.put_nowait(self._ledger.tell(answer))

    async def _pass_on(self, request: Request) -> None:
        size, counts = request.ByteSize(), self._around.counts
        counts.received_bytes += size
        payload = request.WhichOneof("payload")
        if payload == "withheld":  # neither numbered nor acknowledged
            await self._write(request)
            self._around.flow.release(size)
            return
        passed = Passed(sequence=request.sequence, size=size)
        if request.sequence > self._known_sequence:
            self._known_sequence = request.sequence
            if payload == "watermark":
                self._watermark = max(self._watermark, request.watermark.step)
                passed.step = request.watermark.step
            elif payload == "batch" and request.batch.step > self._watermark:
                await self._sift(request, passed)
        if payload == "batch":
            shape = request.batch.sample_ids.shape
            counts.forwarded += max(0, shape[0]) if shape and not passed.unsent else 0
            counts.cut += passed.cut
        self._settle(self._ledger.note(passed))
        if not passed.unsent:
            await self._write(request)
        elif self._ledger.owes:
            self._events.put_nowait(None)

    async def _sift(self, request: Request, passed: Passed) -> None:
        """Leave out of a batch what no server wants."""
        batch, run, limits = request.batch, self._around.run, self._around.topology.limits
        if (
            passed.size > limits.message_bytes
            or batch.step > MAX_STEP
            or group_problem(batch.group, limits.name_length)
        ):
            return  # not even a window is to be remembered for it
        window = run.window(batch.group, batch.step)
        await window.room(batch.sample_ids.shape[0] if batch.sample_ids.shape else 0)
        sifted = await self._sifted(batch, passed.size, window.hash_limit)
        if sifted is None:
            return
        passed.cut = sifted.cut
        passed.unsent = sifted.batch is None
        if sifted.batch is not None:
            passed.step = batch.step
            passed.rows = SentRows(
                window=window, group=batch.group, sample_ids_N=sifted.sample_ids_N, hashes_N=sifted.hashes_N
            )
            window.send(len(sifted.sample_ids_N))
            if sifted.cut:
                request.batch.CopyFrom(sifted.batch)

    async def _sifted(
        self, batch: routing_pb2.ObservationBatch, size: int, hash_limit: int | None
    ) -> Sifted | None:
        around = self._around
        run = around.run
        keep_one = run.is_news(batch.step)

        def work() -> Sifted | None:
            return sift(batch, run.attempt, around.topology, run.settings, hash_limit, keep_one=keep_one)

        async with around.share.decoding:
            if size < LARGE_BYTES:
                return work()
            return await asyncio.get_running_loop().run_in_executor(around.decoder, work)

    async def _write(self, request: Request) -> None:
        self._around.counts.forwarded_bytes += request.ByteSize()
        await self._call.write(request)

    def _settle(self, messages: Iterable[Passed]) -> None:
        """Nothing more is to come of these."""
        run = self._around.run
        for message in messages:
            self._around.flow.release(message.size)
            if message.rows is not None:
                message.rows.window.answered(len(message.rows.sample_ids_N))
            if message.rejected or message.step is None:
                continue
            if message.rows is None:
                run.see(message.step)
            else:
                rows = message.rows
                run.hold(rows.group, message.step, rows.sample_ids_N, rows.hashes_N)
