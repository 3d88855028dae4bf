"""The message of a watermark, which also tells what was dropped."""

from __future__ import annotations

from collections.abc import Callable

from pathwatch.v1 import routing_pb2


class WatermarkRequest:
    """Makes the message as often as it is sent, each time the same."""

    def __init__(self, step: int, dropped_observations: Callable[[], int]) -> None:
        """What was dropped so far is asked for when the message is first sent or spooled, not before."""
        self._watermark = routing_pb2.Watermark(step=step)
        self._count = dropped_observations

    def __call__(self) -> routing_pb2.StreamRoutingRequest:
        """A new message, its sequence 0."""
        if not self._watermark.HasField("dropped_observations"):
            self._watermark.dropped_observations = self._count()
        return routing_pb2.StreamRoutingRequest(watermark=self._watermark)
