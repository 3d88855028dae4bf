"""A server that answers anything at all: training hears nothing of it, and memory and logs stay bounded."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import pytest

from pathwatch.client import RoutingStream
from pathwatch.v1 import routing_pb2, run_pb2, signal_pb2

NASTY = "\r\n2026-01-01 CRITICAL forged\x1b[2J\u202e" + "x" * 50_000
WORDS = [
    NASTY,
    "larger than max (9 vs. 99999999999999999999999)",
    "connection age",
    "ping timeout",
    "",
]


class HostileServer(grpc.GenericRpcHandler):
    """Answers every method with what `rng` says: odd messages, no messages, failures with odd details."""

    def __init__(self, seed: int) -> None:
        self.answers = 0
        self._calls = 0
        self._rng = random.Random(seed)  # noqa: S311
        self._lock = threading.Lock()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        if details.method.endswith("StreamRouting"):
            return grpc.stream_stream_rpc_method_handler(self._stream)
        if details.method.endswith("WatchSignals"):
            return grpc.unary_stream_rpc_method_handler(self._watch)
        return grpc.unary_unary_rpc_method_handler(self._call)

    def _stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b""  # the hello is answered
        for _ in zip(range(6), requests, strict=False):
            yield self._next(self._response)
        self._end(context)

    def _watch(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for _ in range(3):
            yield self._next(self._signal)
        self._end(context)

    def _call(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Fails once, answers nonsense once, then as it should: with an empty message."""
        with self._lock:
            self._calls += 1
            call, nonsense = self._calls, self._rng.randbytes(20)
        if call == 1:
            self._end(context)
        return nonsense if call == 2 else b""

    def _next(self, make: Any) -> bytes:
        with self._lock:
            self.answers += 1
            data: bytes = make().SerializeToString() if self._rng.random() < 0.8 else self._rng.randbytes(30)
            return data

    def _end(self, context: grpc.ServicerContext) -> None:
        with self._lock:
            codes = list(grpc.StatusCode)
            code, words = self._rng.choice(codes), self._rng.choice(WORDS)[:4000]
            details = self._rng.randbytes(40)
        if code is not grpc.StatusCode.OK:
            context.set_trailing_metadata((("grpc-status-details-bin", details),))
            context.abort(code, words)

    def _number(self, bits: int) -> int:
        return self._rng.choice([0, 1, 2, 2 ** (bits - 1) - 1, self._rng.getrandbits(bits - 1)])

    def _response(self) -> routing_pb2.StreamRoutingResponse:
        rng = self._rng
        return routing_pb2.StreamRoutingResponse(
            acked_sequence=rng.choice([0, 0, 1, 2, 3, 2**64 - 1]),
            rejections=[
                routing_pb2.Rejection(
                    sequence=self._number(64),
                    code=self._number(32),
                    message=rng.choice(WORDS),
                    field=rng.choice(["", f"{NASTY[:30]}{rng.random()}"]),
                    sample_id=self._number(64),
                )
                for _ in range(rng.choice([0, 1, 40]))
            ],
            advice=[
                routing_pb2.SamplingAdvice(
                    group=f"{rng.random()}\n", until_step=self._number(64), hash_threshold=self._number(64)
                )
                for _ in range(rng.choice([0, 1, 500]))
            ],
            accepted_observations=self._number(64),
            late_observations=self._number(64),
        )

    def _signal(self) -> signal_pb2.Signal:
        return signal_pb2.WatchSignalsResponse(
            signal=signal_pb2.Signal(
                run=NASTY,
                step=-self._number(64),
                action=self._rng.choice([0, 1, 2, 3, 77]),
                stop_at_step=-self._number(64),
                reason=NASTY,
                groups=[signal_pb2.GroupStatus(group=NASTY, phase=77)],
            )
        )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_training_hears_nothing_of_it(
    seed: int, caplog: pytest.LogCaptureFixture, eventually: Any, threads_left: Any
) -> None:
    caplog.set_level(logging.DEBUG, "pathwatch")
    hostile = HostileServer(seed)
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((hostile,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    config = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4))
    stream = RoutingStream(
        f"127.0.0.1:{port}", run="run", config=None if seed else config, buffer_bytes=1 << 20, watch=True
    )
    weights = np.full((8, 2, 4), 0.25, np.float32)
    try:
        for step in range(3000):
            stream.observe(step=step, group="math", sample_ids=np.arange(8), weights=weights)
            stream.register_checkpoint(step=step, tag="t")
            stream.watermark(step)
            assert stream.stats.buffered_bytes <= 1 << 20
            assert len(stream.advice) <= 1000
            _ = stream.signal
            if hostile.answers > 60:
                break
            time.sleep(0.002)  # a training step
        eventually(lambda: hostile.answers > 10)
    finally:
        stream.close(2)
        server.stop(None).wait()
    eventually(lambda: threads_left() == [])
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("pathwatch")]
    assert len(messages) < 400
    assert [message for message in messages if not message.isprintable() or len(message) > 2000] == []
