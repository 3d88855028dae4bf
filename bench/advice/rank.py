"""A rank without threads and connection: what the client decides, its buffer, and what it would send."""

from __future__ import annotations

from collections.abc import Iterator

from pathwatch.client.buffer import SendBuffer
from pathwatch.client.messages import Message
from pathwatch.client.observations import Observations
from pathwatch.client.withholding import Withholding
from pathwatch.v1 import routing_pb2

_CAPACITY = 64 << 20


class _Buffer(SendBuffer):
    nudged = False

    def nudge(self) -> None:
        """Remembered: there is no thread to wake."""
        self.nudged = True


class SimulatedRank:
    """The caller carries messages to a server and responses back, when it likes."""

    def __init__(self, run: str, rank: int, *, attempt: int = 0, most_bytes: int = _CAPACITY // 4) -> None:
        self._buffer = _Buffer(_CAPACITY)
        self._withholding = Withholding(
            run,
            rank,
            self._buffer,
            attempt=attempt,
            send=self._send,
            mark=self._mark,
            most_bytes=most_bytes,
        )
        self._generation = self._buffer.rewind()
        self._first = True

    def observe(self, observations: Observations) -> None:
        """As `RoutingStream.observe`."""
        self._withholding.observe(observations)

    def watermark(self, step: int) -> None:
        """As `RoutingStream.watermark`."""
        self._withholding.watermark(step)

    def messages(self, most: int | None = None) -> Iterator[routing_pb2.StreamRoutingRequest]:
        """What is sent until there is nothing more to send; at most so many."""
        while most is None or most > 0:
            if self._buffer.has_unsent:
                message = self._buffer.take(self._generation)
                if message is None or message.encode is None:
                    continue
                request = message.encode()
                request.sequence = message.sequence
            elif self._buffer.nudged:
                self._buffer.nudged = False
                told = self._withholding.next_message()
                if told is None:
                    continue
                request = told
            else:
                return
            most = None if most is None else most - 1
            yield request

    def hear(self, response: routing_pb2.StreamRoutingResponse) -> None:
        """A response has come."""
        self._buffer.acknowledge(response.acked_sequence)
        self._withholding.heed(response, first=self._first)
        self._first = False

    def disconnect(self, *, well: bool) -> None:
        """The connection is gone, and another one there: what was not acknowledged is sent again.

        `well`: the server ended it, after it had answered everything.
        """
        if not well:
            self._withholding.stop()
        self._generation = self._buffer.rewind()
        self._first = True

    def _send(self, observations: Observations) -> None:
        for piece in observations.split(256 << 10):
            self._buffer.add(
                Message(
                    kind="batch",
                    step=observations.step,
                    encode=piece.request,
                    nbytes=piece.nbytes,
                    samples=piece.samples,
                )
            )

    def _mark(self, step: int) -> None:
        request = routing_pb2.StreamRoutingRequest(watermark=routing_pb2.Watermark(step=step))
        self._buffer.add(Message(kind="watermark", step=step, encode=lambda: request))
