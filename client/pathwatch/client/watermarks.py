"""Watermarks, which also tell what was dropped, and how much of it the server has been told."""

from __future__ import annotations

from collections import deque
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


class ToldDropped:
    """What acknowledged watermarks have told of dropped observations."""

    def __init__(self) -> None:
        self.count = 0
        """The largest number told."""
        self._under_way: deque[tuple[int, int]] = deque()

    def reconnect(self) -> None:
        """What is not acknowledged will be sent again."""
        self._under_way.clear()

    def sent(self, request: routing_pb2.StreamRoutingRequest) -> None:
        """A watermark is being sent."""
        self._under_way.append((request.sequence, request.watermark.dropped_observations))

    def acknowledge(self, sequence: int) -> None:
        """The server has all messages up to `sequence`."""
        while self._under_way and self._under_way[0][0] <= sequence:
            self.count = max(self.count, self._under_way.popleft()[1])
