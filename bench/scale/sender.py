"""Ranks of a run in stream mode that send a given number of steps, as fast as these are acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np

from bench.ingest.generator import METHOD
from bench.overload.messages import EXPERTS, LAYERS, batch, topology
from pathwatch.client.tensors import to_tensor
from pathwatch.v1 import routing_pb2, run_pb2

RANKS, GROUPS, SAMPLES, WINDOW_STEPS = 8, 8, 64, 32
"""A rank sends so many samples of each group in a step, every one of them new: a window sees 16,384 of each
group, and keeps the usual 512."""
STEP_BYTES = RANKS * GROUPS * SAMPLES * LAYERS * EXPERTS * 2
"""Routing weights that all ranks send in a step, float16."""
_IN_FLIGHT = 8
"""Messages of a rank that are sent and not acknowledged."""
_PATIENCE = 300.0
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


def config() -> run_pb2.RunConfig:
    """Of the run."""
    mode = run_pb2.OBSERVATION_MODE_STREAM
    return run_pb2.RunConfig(topology=topology(), mode=mode, window_steps=WINDOW_STEPS, grace_seconds=3600)


class Sender:
    """All ranks of a run; the weights of their messages are encoded once."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._next_step = 0
        self._tails = []
        for rank in range(RANKS):
            weights = routing_pb2.ObservationBatch(weights=batch(f"rank-{rank}", n=SAMPLES).weights)
            self._tails.append(routing_pb2.StreamRoutingRequest(batch=weights).SerializeToString())

    def send(self, address: str, steps: int) -> int:
        """The next steps, over a connection for each rank; returns the last once all is acknowledged."""
        first, self._next_step = self._next_step, self._next_step + steps
        asyncio.run(self._send(address, range(first, first + steps)))
        return self._next_step - 1

    async def _send(self, address: str, steps: range) -> None:
        async with asyncio.timeout(_PATIENCE):
            await asyncio.gather(*(self._send_rank(address, rank, steps) for rank in range(RANKS)))

    async def _send_rank(self, address: str, rank: int, steps: range) -> None:
        room = asyncio.Semaphore(_IN_FLIGHT)
        acked = 0
        async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
            call: Any = channel.stream_stream(METHOD, None, None)(self._messages(rank, steps, room))
            async for answer in call:
                response = routing_pb2.StreamRoutingResponse.FromString(answer)
                if response.rejections or response.late_observations:
                    raise RuntimeError(f"rank {rank} of {self._run} was refused something: {response}")
                for _ in range(response.acked_sequence - acked):
                    room.release()
                acked = max(acked, response.acked_sequence)
        if acked < len(steps) * (GROUPS + 1):
            raise RuntimeError(f"the stream of rank {rank} of {self._run} ended early")

    async def _messages(self, rank: int, steps: range, room: asyncio.Semaphore) -> AsyncIterator[bytes]:
        hello = routing_pb2.StreamHello(run=self._run, rank=rank, world_size=RANKS, session=f"{steps[0]}")
        yield routing_pb2.StreamRoutingRequest(hello=hello).SerializeToString()
        losses = to_tensor(np.full(SAMPLES, 2.0, np.float32))
        sequence = 0
        for step in steps:
            ids = to_tensor(np.arange(SAMPLES) + (step * RANKS + rank) * SAMPLES)
            for group in range(GROUPS):
                await room.acquire()
                sequence += 1
                head = routing_pb2.ObservationBatch(
                    step=step, group=f"group-{group}", sample_ids=ids, losses=losses
                )
                request = routing_pb2.StreamRoutingRequest(sequence=sequence, batch=head)
                # Two serialized messages in a row are one message: their fields are merged.
                yield request.SerializeToString() + self._tails[rank]
            await room.acquire()
            sequence += 1
            watermark = routing_pb2.Watermark(step=step)
            request = routing_pb2.StreamRoutingRequest(sequence=sequence, watermark=watermark)
            yield request.SerializeToString()
