"""Another run's streams at a steady rate: `python -m bench.latency.load ADDRESS RUN [--rate MB/S]`.

Eight connections send messages of 256 new samples of OLMoE's size (512 KB) into windows that never close,
each with as many under way as the sender of bench/ingest, and as cheaply: their weights are serialized once.
Prints the megabytes of weights acknowledged per second, once a second, until its standard input ends.
Without a rate it sends as fast as the server takes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence

import grpc
import numpy as np

from bench.ingest.generator import METHOD
from bench.ingest.workloads import RANKS, STREAM
from bench.overload.messages import batch, topology
from pathwatch.client.tensors import to_tensor
from pathwatch.v1 import routing_pb2, run_pb2, run_pb2_grpc

_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", 64 << 20)]
"""A connection of its own for each channel."""


class Connection:
    """One rank; sends until it is cancelled."""

    def __init__(self, run: str, rank: int, interval: float) -> None:
        """`interval` is in seconds between two messages, 0 = none."""
        self.acked = 0
        """Messages acknowledged."""
        self._hello = routing_pb2.StreamHello(run=run, rank=rank, world_size=RANKS, session="load")
        self._rank = rank
        self._interval = interval
        whole = batch(f"group{rank}", n=STREAM.samples)
        whole.ClearField("sample_ids")
        self._tail = routing_pb2.StreamRoutingRequest(batch=whole).SerializeToString()
        self._room = asyncio.Semaphore(STREAM.in_flight)

    async def send(self, address: str) -> None:
        """Send, and take acknowledgements."""
        async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
            answers = channel.stream_stream(METHOD, None, routing_pb2.StreamRoutingResponse.FromString)
            async for response in answers(self._requests()):
                if response.rejections:
                    raise RuntimeError(f"refused: {response.rejections[0]}")
                for _ in range(response.acked_sequence - self.acked):
                    self._room.release()
                self.acked = max(self.acked, response.acked_sequence)

    async def _requests(self) -> AsyncIterator[bytes]:
        yield routing_pb2.StreamRoutingRequest(hello=self._hello).SerializeToString()
        # Connections take turns.
        started = time.monotonic() + self._rank / RANKS * self._interval
        sequence = 0
        while True:
            await asyncio.sleep(max(0.0, started + sequence * self._interval - time.monotonic()))
            await self._room.acquire()
            sequence += 1
            first = (self._rank << 40) + sequence * STREAM.samples
            ids = to_tensor(np.arange(first, first + STREAM.samples))
            head = routing_pb2.ObservationBatch(sample_ids=ids)
            request = routing_pb2.StreamRoutingRequest(sequence=sequence, batch=head)
            # Two serialized messages in a row are one message: their fields are merged.
            yield request.SerializeToString() + self._tail


def main(arguments: Sequence[str] | None = None) -> None:
    """Send until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m bench.latency.load")
    parser.add_argument("address")
    parser.add_argument("run")
    parser.add_argument("--rate", type=float, help="megabytes of weights per second, of all connections")
    options = parser.parse_args(arguments)
    config = run_pb2.RunConfig(
        topology=topology(), mode=run_pb2.OBSERVATION_MODE_STREAM, window_steps=1_000_000
    )
    with grpc.insecure_channel(options.address) as channel:
        runs = run_pb2_grpc.RunServiceStub(channel)
        runs.CreateRun(run_pb2.CreateRunRequest(name=options.run, config=config), timeout=30)
    asyncio.run(_load(options.address, options.run, options.rate))


async def _load(address: str, run: str, rate: float | None) -> None:
    interval = RANKS * STREAM.weight_bytes / rate / 1e6 if rate else 0.0
    ranks = [Connection(run, rank, interval) for rank in range(RANKS)]
    ending = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    ending.add_done_callback(lambda _: os._exit(0))  # gRPC would send what it holds first
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_report(ranks))
        for rank in ranks:
            tasks.create_task(rank.send(address))


async def _report(ranks: Sequence[Connection]) -> None:
    before, at = 0, time.monotonic()
    while True:
        await asyncio.sleep(1.0)
        acked, now = sum(rank.acked for rank in ranks) * STREAM.weight_bytes, time.monotonic()
        print(f"{(acked - before) / (now - at) / 1e6:.2f}", flush=True)
        before, at = acked, now


if __name__ == "__main__":
    main()
