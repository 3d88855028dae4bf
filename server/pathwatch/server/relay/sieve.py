"""What goes on of each message of one stream."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from pathwatch.server.api.routing import LARGE_BYTES
from pathwatch.server.api.shares import RunShare
from pathwatch.server.engine.checks import MAX_STEP
from pathwatch.server.engine.decode import Topology, group_problem
from pathwatch.server.relay.known import KnownRun
from pathwatch.server.relay.ledger import Passed, SentRows
from pathwatch.server.relay.sifting import Sifted, sift
from pathwatch.v1 import routing_pb2


class Sieve:
    """Leaves alone what a server would refuse, or may have had before. Used on the event loop."""

    def __init__(
        self, run: KnownRun, topology: Topology, share: RunShare, decoder: Executor, *, applied: int
    ) -> None:
        """`applied`: largest sequence that the server said it had when the stream began."""
        self.run = run
        """What is known of the stream's run."""
        self._topology = topology
        self._share = share
        self._decoder = decoder
        self._sequence = applied
        self._watermark = -1

    async def look(self, request: routing_pb2.StreamRoutingRequest, size: int) -> Passed:
        """What becomes of a message of so many bytes; what is not wanted of it is gone from it."""
        passed = Passed(sequence=request.sequence, size=size)
        if request.sequence <= self._sequence:
            return passed
        self._sequence = request.sequence
        match request.WhichOneof("payload"):
            case "watermark":
                self._watermark = max(self._watermark, request.watermark.step)
                passed.step = request.watermark.step
            case "batch" if self._is_plausible(request.batch, size):
                await self._sift(request.batch, passed)
        return passed

    def _is_plausible(self, batch: routing_pb2.ObservationBatch, size: int) -> bool:
        """Whether a window may be remembered for it."""
        limits = self._topology.limits
        return (
            self._watermark < batch.step <= MAX_STEP
            and size <= limits.message_bytes
            and group_problem(batch.group, limits.name_length) is None
        )

    async def _sift(self, batch: routing_pb2.ObservationBatch, passed: Passed) -> None:
        window = self.run.window(batch.group, batch.step)
        await window.room(batch.sample_ids.shape[0] if batch.sample_ids.shape else 0)
        async with self._share.decoding:
            sifted = await self._sifted(batch, passed.size, window.hash_limit)
        if sifted is None:
            return
        passed.cut = sifted.cut
        passed.unsent = sifted.batch is None
        if sifted.batch is None:
            return
        passed.step = batch.step
        passed.rows = SentRows(
            window=window,
            group=batch.group,
            sample_ids_N=sifted.sample_ids_N,
            hashes_N=sifted.hashes_N,
        )
        window.send(len(sifted.sample_ids_N))
        if sifted.cut:
            batch.CopyFrom(sifted.batch)

    async def _sifted(
        self, batch: routing_pb2.ObservationBatch, size: int, hash_limit: int | None
    ) -> Sifted | None:
        run, keep_one = self.run, self.run.is_news(batch.step)

        def work() -> Sifted | None:
            return sift(batch, run.attempt, self._topology, run.settings, hash_limit, keep_one=keep_one)

        if size < LARGE_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._decoder, work)
