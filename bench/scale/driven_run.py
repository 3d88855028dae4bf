"""A run of one rank in probe mode, whose messages are bytes."""

from __future__ import annotations

import queue
import time

import grpc

from bench.ingest.generator import METHOD
from bench.scale.messages import EncodedRound
from pathwatch.v1 import routing_pb2, run_pb2, run_pb2_grpc

_PATIENCE = 300.0
"""Seconds until what is not acknowledged or judged is an error."""
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


class DrivenRun:
    """A context manager; the run is created when it is made, its stream ends with it."""

    def __init__(self, address: str, run: str, rounds: EncodedRound) -> None:
        self._run = run
        self._round = rounds
        self._sequence = 0
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._runs = run_pb2_grpc.RunServiceStub(self._channel)
        config = run_pb2.RunConfig(topology=rounds.topology, grace_seconds=3600)
        self._runs.CreateRun(run_pb2.CreateRunRequest(name=run, config=config), timeout=60)
        self._call = self._channel.stream_stream(METHOD, None, None)(iter(self._queue.get, None))
        hello = routing_pb2.StreamHello(run=run, world_size=1, session="driven")
        self._queue.put(routing_pb2.StreamRoutingRequest(hello=hello).SerializeToString())

    def __enter__(self) -> DrivenRun:
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._call.cancel()  # type: ignore[no-untyped-call]
        self._channel.close()

    def observe(self, step: int) -> None:
        """Send a round; it stays open."""
        for message in self._round.messages(step, self._sequence):
            self._sequence += 1
            self._queue.put(message)

    def complete(self, step: int) -> None:
        """Send that the round is over."""
        self._sequence += 1
        watermark = routing_pb2.Watermark(step=step)
        request = routing_pb2.StreamRoutingRequest(sequence=self._sequence, watermark=watermark)
        self._queue.put(request.SerializeToString())

    def await_acks(self) -> None:
        """Until everything that was sent is acknowledged."""
        for answer in self._call:
            response = routing_pb2.StreamRoutingResponse.FromString(answer)
            if response.rejections:
                raise RuntimeError(f"{self._run}: {response.rejections[0]}")
            if response.acked_sequence >= self._sequence:
                return
        raise RuntimeError(f"{self._run}: the stream ended with messages unacknowledged")

    def await_judged(self, step: int) -> None:
        """Until the round of `step` is judged."""
        deadline = time.monotonic() + _PATIENCE
        request = run_pb2.GetRunRequest(name=self._run)
        while self._runs.GetRun(request, timeout=60).run.closed_step < step:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._run}: step {step} is not judged within {_PATIENCE:g} seconds")
            time.sleep(0.05)
