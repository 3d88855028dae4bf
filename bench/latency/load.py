"""Another run's streams at a steady rate: `python -m bench.latency.load ADDRESS RUN [--rate MB/S]`.

Eight connections send messages of 256 new samples of OLMoE's size (512 KB) into windows that never close,
each with a few messages under way. Prints the megabytes of weights acknowledged per second, once a second,
until its standard input ends. Without a rate it sends as fast as the server takes.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import grpc
import numpy as np

from bench.overload.messages import batch, topology
from pathwatch.client.tensors import to_tensor
from pathwatch.v1 import routing_pb2, routing_pb2_grpc, run_pb2, run_pb2_grpc

CONNECTIONS = 8
SAMPLES = 256
UNDER_WAY = 4
"""Messages of a connection that are not acknowledged yet, at most."""
_APART = (("grpc.use_local_subchannel_pool", 1),)
"""A connection of its own for each channel."""


class Connection:
    """One rank; sends until the process ends."""

    def __init__(self, address: str, run: str, rank: int, interval: float) -> None:
        """`interval` is in seconds between two messages, 0 = none."""
        self._hello = routing_pb2.StreamHello(run=run, rank=rank, world_size=CONNECTIONS, session="load")
        self._rank = rank
        self._interval = interval
        self._batch = batch(f"group{rank}", n=SAMPLES)
        self._room = threading.Semaphore(UNDER_WAY)
        self._channel = grpc.insecure_channel(address, options=_APART)
        self.acked = 0
        """Messages acknowledged."""
        self.nbytes = len(self._batch.weights.data)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        stub = routing_pb2_grpc.RoutingServiceStub(self._channel)
        for response in stub.StreamRouting(self._requests()):
            if response.rejections:
                sys.exit(f"refused: {response.rejections[0]}")
            for _ in range(response.acked_sequence - self.acked):
                self._room.release()
            self.acked = max(self.acked, response.acked_sequence)

    def _requests(self) -> Iterator[routing_pb2.StreamRoutingRequest]:
        yield routing_pb2.StreamRoutingRequest(hello=self._hello)
        # Connections take turns.
        started = time.monotonic() + self._rank / CONNECTIONS * self._interval
        sequence = 0
        while True:
            time.sleep(max(0.0, started + sequence * self._interval - time.monotonic()))
            self._room.acquire()
            sequence += 1
            first = (self._rank << 40) + sequence * SAMPLES
            self._batch.sample_ids.CopyFrom(to_tensor(np.arange(first, first + SAMPLES)))
            yield routing_pb2.StreamRoutingRequest(sequence=sequence, batch=self._batch)


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
    message = len(batch("", n=SAMPLES).weights.data)
    interval = CONNECTIONS * message / options.rate / 1e6 if options.rate else 0.0
    ranks = [Connection(options.address, options.run, n, interval) for n in range(CONNECTIONS)]
    threading.Thread(target=_report, args=(ranks,), daemon=True).start()
    sys.stdin.read()
    os._exit(0)  # gRPC would send what it holds first


def _report(ranks: Sequence[Connection]) -> None:
    before, at = 0, time.monotonic()
    while True:
        time.sleep(1.0)
        acked, now = sum(rank.acked * rank.nbytes for rank in ranks), time.monotonic()
        print(f"{(acked - before) / (now - at) / 1e6:.2f}", flush=True)
        before, at = acked, now


if __name__ == "__main__":
    main()
