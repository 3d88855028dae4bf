"""One rank that sends a message again and again, each time with a step of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import grpc

from pathwatch.v1 import routing_pb2

IN_FLIGHT = 3
"""Messages that are sent and not acknowledged: one on its way, one decoded, one written."""


def seconds_per_message(
    address: str, run: str, batch: routing_pb2.ObservationBatch, seconds: float
) -> tuple[float, int]:
    """How long one takes while as many follow as are in flight, and how many were acknowledged."""
    room = threading.Semaphore(IN_FLIGHT)
    acked_at: list[float] = []
    tail = routing_pb2.StreamRoutingRequest(batch=batch).SerializeToString()
    end = time.monotonic() + seconds

    def messages() -> Iterator[bytes]:
        hello = routing_pb2.StreamHello(run=run, rank=0, world_size=1, session="bench")
        yield routing_pb2.StreamRoutingRequest(hello=hello).SerializeToString()
        sequence = 0
        while time.monotonic() < end:
            room.acquire()
            sequence += 2
            head = routing_pb2.ObservationBatch(step=sequence)
            request = routing_pb2.StreamRoutingRequest(sequence=sequence - 1, batch=head)
            # Two serialized messages in a row are one message: their fields are merged.
            yield request.SerializeToString() + tail
            watermark = routing_pb2.Watermark(step=sequence)
            yield routing_pb2.StreamRoutingRequest(sequence=sequence, watermark=watermark).SerializeToString()

    with grpc.insecure_channel(address, options=[("grpc.max_send_message_length", 64 << 20)]) as channel:
        call = channel.stream_stream(
            "/pathwatch.v1.RoutingService/StreamRouting", None, routing_pb2.StreamRoutingResponse.FromString
        )
        for answer in call(messages()):
            if answer.rejections:
                raise RuntimeError(f"refused: {answer.rejections[0].message}")
            for _ in range(answer.acked_sequence // 2 - len(acked_at)):
                room.release()
                acked_at.append(time.monotonic())
    return (acked_at[-1] - acked_at[0]) / (len(acked_at) - 1), len(acked_at)
