"""Ranks of one run that send as fast as they can: `python -m bench.overload.flood ADDRESS RUN MODE …`.

Prints what was acknowledged as one JSON line when its time is over. MODE: `rounds` closes a window with every
step, so that the pool computes without pause; `ingest` sends into one window that never closes, so that
nothing but the receiving is at work.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence

import grpc

from bench.overload.messages import batch, topology
from pathwatch.v1 import routing_pb2, routing_pb2_grpc, run_pb2, run_pb2_grpc

SAMPLES = {"rounds": 64, "ingest": 256}
"""Observations per message."""


class Rank:
    """One stream, in threads of gRPC's."""

    def __init__(self, channel: grpc.Channel, run: str, rank: int, world_size: int, mode: str) -> None:
        self._stub = routing_pb2_grpc.RoutingServiceStub(channel)
        self._hello = routing_pb2.StreamHello(
            run=run, rank=rank, world_size=world_size, session=f"{os.getpid()}.{rank}"
        )
        self._mode = mode
        self._batch = batch("flood", n=SAMPLES[mode], first_id=rank * SAMPLES[mode])
        self._sequence = 0
        self.over = threading.Event()
        self.acked = 0
        """Messages acknowledged."""
        self.refused = 0
        """Streams that the server ended."""
        self.nbytes = self._batch.ByteSize()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of its last stream."""
        self._thread.join(30)

    def _run(self) -> None:
        while not self.over.is_set():
            call = self._stub.StreamRouting(self._requests())
            try:
                for response in call:
                    self.acked = max(self.acked, response.acked_sequence)
                    if self.over.is_set():
                        call.cancel()  # type: ignore[no-untyped-call]
            except grpc.RpcError:
                if not self.over.is_set():
                    self.refused += 1
                    self._sequence = self.acked
                    self.over.wait(1.0)

    def _requests(self) -> Iterator[routing_pb2.StreamRoutingRequest]:
        yield routing_pb2.StreamRoutingRequest(hello=self._hello)
        while not self.over.is_set():
            self._sequence += 1
            step = (self._sequence + 1) // 2 if self._mode == "rounds" else 1
            if self._mode == "rounds" and self._sequence % 2 == 0:
                yield routing_pb2.StreamRoutingRequest(
                    sequence=self._sequence, watermark=routing_pb2.Watermark(step=step)
                )
                continue
            self._batch.step = step
            yield routing_pb2.StreamRoutingRequest(sequence=self._sequence, batch=self._batch)


def main(arguments: Sequence[str] | None = None) -> None:
    """Flood for some seconds."""
    parser = argparse.ArgumentParser(prog="python -m bench.overload.flood")
    parser.add_argument("address")
    parser.add_argument("run")
    parser.add_argument("mode", choices=sorted(SAMPLES))
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args(arguments)
    config = run_pb2.RunConfig(topology=topology())
    if options.mode == "ingest":
        config.mode, config.window_steps = run_pb2.OBSERVATION_MODE_STREAM, 1_000_000
    with grpc.insecure_channel(options.address) as channel:
        runs = run_pb2_grpc.RunServiceStub(channel)
        runs.CreateRun(run_pb2.CreateRunRequest(name=options.run, config=config), timeout=30)
        started = time.monotonic()
        ranks = [Rank(channel, options.run, n, options.streams, options.mode) for n in range(options.streams)]
        time.sleep(options.seconds)
        for rank in ranks:
            rank.over.set()
        seconds = time.monotonic() - started
        share = 2 if options.mode == "rounds" else 1  # every other message is a watermark
        acked = sum(rank.acked * rank.nbytes // share for rank in ranks)
        print(
            json.dumps(
                {
                    "acked_mb_per_s": round(acked / seconds / 1e6, 2),
                    "messages_per_s": round(sum(rank.acked for rank in ranks) / seconds, 1),
                    "streams_ended": sum(rank.refused for rank in ranks),
                }
            ),
            flush=True,
        )
        os._exit(0)  # gRPC would send what it holds first


if __name__ == "__main__":
    main()
