"""One rank's stream through a relay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable

from pathwatch.server.api.flow import Flow
from pathwatch.server.api.routing import SHUTTING_DOWN
from pathwatch.server.engine.refusal import RefusedError
from pathwatch.server.relay.counts import RelayCounts
from pathwatch.server.relay.ledger import Ledger, Passed
from pathwatch.server.relay.sieve import Sieve
from pathwatch.server.relay.stream_call import StreamCall
from pathwatch.server.relay.upstream import END
from pathwatch.v1 import routing_pb2

Request = routing_pb2.StreamRoutingRequest
Response = routing_pb2.StreamRoutingResponse


class RankStream:
    """Passes messages up and answers down until either side ends. Used on the event loop.

    Three tasks: one reads what the rank sends as far as there is room, one sifts it and sends it on, one
    hears what the server answers.
    """

    def __init__(
        self,
        requests: AsyncIterator[Request],
        call: StreamCall,
        first: Response,
        sieve: Sieve,
        flow: Flow,
        counts: RelayCounts,
    ) -> None:
        """`first` is what the server answered to the hello."""
        self._requests = requests
        self._call = call
        self._first = first
        self._sieve = sieve
        self._flow = flow
        self._counts = counts
        self._ledger = Ledger()
        self._came: asyncio.Queue[Request | None] = asyncio.Queue()
        self._events: asyncio.Queue[tuple[Response | None, int]] = asyncio.Queue()
        """Answers, or None to look what else there is, and the bytes of messages that are done with that."""
        self._settled = 0
        """Bytes of messages that are done with the next answer."""
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False

    async def serve(self) -> AsyncGenerator[Response, None]:
        """Answers for the rank. Raises AioRpcError as the server ended the stream, RefusedError as we do."""
        self._tasks = [asyncio.create_task(work()) for work in (self._read, self._send, self._hear)]
        reader, sender, hearer = self._tasks
        # None wakes those that wait, whatever ended a task.
        reader.add_done_callback(lambda _: self._came.put_nowait(None))
        for task in self._tasks:
            task.add_done_callback(lambda _: self._events.put_nowait((None, 0)))
        if self._draining:
            reader.cancel()
        self._take_in(self._first)
        while True:
            answer, size = await self._events.get()
            self._flow.release(size)  # no sooner: a rank that hears nothing is not read on
            if answer is not None:
                yield answer
            elif self._ledger.owes:
                yield self._ledger.tell(None)
            for task in (reader, sender):
                if task.done() and not task.cancelled() and (error := task.exception()):
                    raise error
            if hearer.done() and self._events.empty():
                hearer.result()
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
            message.answered()
        self._flow.close()

    async def _read(self) -> None:
        async for request in self._requests:
            await self._flow.acquire(request.ByteSize())
            self._came.put_nowait(request)

    async def _send(self) -> None:
        while (request := await self._came.get()) is not None:
            await self._pass_on(request)
        await self._call.done_writing()

    async def _hear(self) -> None:
        while (answer := await self._call.read()) is not END:
            self._take_in(answer)

    def _take_in(self, answer: Response) -> None:
        for advice in answer.advice:
            window = self._sieve.run.window(advice.group, advice.until_step)
            window.advise(advice.hash_threshold)
        self._settle(self._ledger.heed(answer))
        self._tell(self._ledger.tell(answer))

    async def _pass_on(self, request: Request) -> None:
        size, counts = request.ByteSize(), self._counts
        counts.received_bytes += size
        if request.WhichOneof("payload") == "withheld":  # neither numbered nor acknowledged
            await self._write(request)
            self._flow.release(size)
            return
        passed = await self._sieve.look(request, size)
        counts.cut += passed.cut
        if not passed.unsent:
            # No more than there is room for: a shape can say anything.
            counts.forwarded += len(request.batch.sample_ids.data) // 8
        self._settle(self._ledger.note(passed))
        if not passed.unsent:
            await self._write(request)
        elif self._ledger.owes:
            self._tell(None)

    def _tell(self, answer: Response | None) -> None:
        self._events.put_nowait((answer, self._settled))
        self._settled = 0

    async def _write(self, request: Request) -> None:
        self._counts.forwarded_bytes += request.ByteSize()
        await self._call.write(request)

    def _settle(self, messages: Iterable[Passed]) -> None:
        """Nothing more is to come of these."""
        run = self._sieve.run
        for message in messages:
            self._settled += message.size
            message.answered()
            if message.rejected or message.step is None:
                continue
            if message.rows is None:
                run.see(message.step)
            else:
                rows = message.rows
                run.hold(rows.group, message.step, rows.sample_ids_N, rows.hashes_N)
