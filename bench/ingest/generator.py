"""The sender, in a process of its own: `python -m bench.ingest.generator JOB`, JOB being JSON of a `Block`.

Sends for so many seconds on one connection per rank, never more than the workload's messages unacknowledged,
and prints what became of it as JSON of a `Sent`. Messages are put together from bytes, so that the sender
costs as little as it can; weights are the same in each, samples and steps are not.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

import grpc
import numpy as np

from bench.ingest.workloads import RANKS, Workload
from bench.overload.messages import batch
from pathwatch.client.tensors import to_tensor
from pathwatch.v1 import routing_pb2

METHOD = "/pathwatch.v1.RoutingService/StreamRouting"
WARM_SECONDS = 1.0
"""At the start of a block, not counted: connections, first windows."""
_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", 64 << 20)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One stretch of sending to one server."""

    address: str
    run: str
    """Empty: the server only echoes, one answer per message."""
    workload: Workload
    first_step: int
    """Above all steps of earlier blocks to the same run."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What a block came to."""

    messages: int
    """Acknowledged after warming up."""
    all_messages: int
    """Acknowledged since the start."""
    seconds: float
    """From warmed up to the end."""
    next_step: int
    rejected: int
    late: int


class _Rank:
    """One connection."""

    def __init__(self, block: Block, rank: int, tails: list[bytes]) -> None:
        self.acked = 0
        self.rejected = 0
        self.late = 0
        self.step = block.first_step
        self._block = block
        self._rank = rank
        self._tails = tails
        self._room = asyncio.Semaphore(block.workload.in_flight)

    async def send(self, until: float) -> None:
        """Send until this moment of time.monotonic() and wait for the last answer."""
        async with grpc.aio.insecure_channel(self._block.address, options=_OPTIONS) as channel:
            call = channel.stream_stream(METHOD, None, None)(self._messages(until))
            async for answer in call:
                self._take(answer)

    async def _messages(self, until: float) -> AsyncIterator[bytes]:
        workload = self._block.workload
        losses = to_tensor(np.full(workload.samples, 2.0, np.float32))
        sequence = 0
        if self._block.run:
            session = f"{self._block.first_step}"
            hello = routing_pb2.StreamHello(
                run=self._block.run, rank=self._rank, world_size=RANKS, session=session
            )
            yield routing_pb2.StreamRoutingRequest(hello=hello).SerializeToString()
        while time.monotonic() < until:
            ids = to_tensor(np.array(workload.sample_ids(self._rank, self.step)))
            for group in workload.groups(self._rank):
                await self._room.acquire()
                sequence += 1
                head = routing_pb2.ObservationBatch(
                    step=self.step, group=f"group-{group}", sample_ids=ids, losses=losses
                )
                request = routing_pb2.StreamRoutingRequest(sequence=sequence, batch=head)
                # Two serialized messages in a row are one message: their fields are merged.
                yield request.SerializeToString() + self._tails[self._rank]
            sequence += 1
            await self._room.acquire()
            watermark = routing_pb2.StreamRoutingRequest(
                sequence=sequence, watermark=routing_pb2.Watermark(step=self.step)
            )
            yield watermark.SerializeToString()
            self.step += 1

    def _take(self, answer: bytes) -> None:
        if not self._block.run:
            acked = self.acked + 1
        else:
            response = routing_pb2.StreamRoutingResponse.FromString(answer)
            acked = max(self.acked, response.acked_sequence)
            self.rejected += len(response.rejections)
            self.late = response.late_observations
        for _ in range(acked - self.acked):
            self._room.release()
        self.acked = acked


async def send(block: Block) -> Sent:
    """Send a block."""
    tails = []
    for rank in range(RANKS):
        weights = batch(f"rank-{rank}", n=block.workload.samples).weights
        tail = routing_pb2.StreamRoutingRequest(batch=routing_pb2.ObservationBatch(weights=weights))
        tails.append(tail.SerializeToString())
    ranks = [_Rank(block, rank, tails) for rank in range(RANKS)]
    start = time.monotonic()
    sending = asyncio.gather(*(rank.send(start + WARM_SECONDS + block.seconds) for rank in ranks))
    await asyncio.sleep(WARM_SECONDS)
    warm, warm_acked = time.monotonic(), sum(rank.acked for rank in ranks)
    await sending
    acked = sum(rank.acked for rank in ranks)
    return Sent(
        messages=acked - warm_acked,
        all_messages=acked,
        seconds=time.monotonic() - warm,
        next_step=max(rank.step for rank in ranks),
        rejected=sum(rank.rejected for rank in ranks),
        late=sum(rank.late for rank in ranks),
    )


def main(job: str) -> None:
    """Send the block that `job` describes, say what it came to."""
    fields = json.loads(job)
    block = Block(**{**fields, "workload": Workload(**fields["workload"])})
    print(json.dumps(asdict(asyncio.run(send(block)))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
