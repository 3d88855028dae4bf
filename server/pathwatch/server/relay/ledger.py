"""What became of the messages of one rank: sent, left out, acknowledged."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.relay.known import KnownWindow
from pathwatch.v1 import routing_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRows:
    """Observations under way to a server."""

    window: KnownWindow
    group: str
    sample_ids_N: NDArray[np.int64]
    hashes_N: NDArray[np.uint64]


@dataclass(slots=True, eq=False, kw_only=True)
class Passed:
    """One message that has a sequence."""

    sequence: int
    size: int
    """Bytes that it came in."""
    step: int | None = None
    """Of which a server learns with it; None = of none, or it may know the message."""
    rows: SentRows | None = None
    """What of it counts as held by the server once that acknowledges it; None = nothing does."""
    cut: int = 0
    """Observations of it that were left out."""
    unsent: bool = False
    """Nothing of it was sent."""
    rejected: bool = False

    def answered(self) -> None:
        """Observations of it are not under way any more."""
        if self.rows is not None:
            self.rows.window.answered(len(self.rows.sample_ids_N))


class Ledger:
    """In the order of sending.

    A message of which nothing was sent is acknowledged once all before it are: a rank that comes with it to
    another server had the same told of it there.
    """

    def __init__(self) -> None:
        self._open: deque[Passed] = deque()
        self._acked = 0
        self._told = 0
        self._accepted = 0
        self._late = 0
        self._cut = 0

    @property
    def owes(self) -> bool:
        """Whether the rank is to be told of messages without one more answer of the server."""
        return self._acked > self._told

    @property
    def open(self) -> tuple[Passed, ...]:
        """Messages that are not acknowledged."""
        return tuple(self._open)

    def note(self, message: Passed) -> list[Passed]:
        """A message is about to be sent, or was left out; those that are done with that."""
        self._open.append(message)
        return self._settle()

    def heed(self, answer: routing_pb2.StreamRoutingResponse) -> list[Passed]:
        """A server answers; the messages that are done with that."""
        self._accepted, self._late = answer.accepted_observations, answer.late_observations
        self._acked = max(self._acked, answer.acked_sequence)
        if rejected := {rejection.sequence for rejection in answer.rejections}:
            for message in self._open:
                message.rejected |= message.sequence in rejected
        return self._settle()

    def tell(self, answer: routing_pb2.StreamRoutingResponse | None) -> routing_pb2.StreamRoutingResponse:
        """What the rank is told: the same, with what was left out counted as taken in."""
        told = routing_pb2.StreamRoutingResponse()
        if answer is not None:
            told.CopyFrom(answer)
        self._told = self._acked
        told.acked_sequence = self._acked
        told.accepted_observations = self._accepted + self._cut
        told.late_observations = self._late
        return told

    def _settle(self) -> list[Passed]:
        settled = []
        while self._open and self._is_done(self._open[0]):
            message = self._open.popleft()
            settled.append(message)
            if message.unsent:
                self._acked = max(self._acked, message.sequence)
            if not message.rejected:
                self._cut += message.cut
        return settled

    def _is_done(self, message: Passed) -> bool:
        return message.unsent or message.rejected or message.sequence <= self._acked
