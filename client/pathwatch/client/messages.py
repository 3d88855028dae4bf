"""The messages a stream holds, and the queue that holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from pathwatch.v1 import routing_pb2, run_pb2

Kind: TypeAlias = Literal["batch", "watermark", "geometry", "checkpoint", "nudge"]

OVERHEAD = 1024
"""Bytes counted for every message beside its arrays, so that many small messages are bounded too."""


@dataclass(slots=True, eq=False, kw_only=True)
class Message:
    """One thing to be sent."""

    kind: Kind
    step: int
    encode: Callable[[], routing_pb2.StreamRoutingRequest] | None = None
    """Makes the message to send, its sequence still 0; None for a checkpoint, which is a call of its own."""
    checkpoint: run_pb2.Checkpoint | None = None
    nbytes: int = 0
    samples: int = 0
    sequence: int = 0
    """Given when first sent or spooled and kept for ever, so that it is recognised when resent; 0 = none."""
    done: bool = False
    """Acknowledged, dropped, discarded or spooled: memory is no longer held for it."""
    before: Message | None = None
    after: Message | None = None
    """Neighbours in the queue; its own business."""

    @property
    def size(self) -> int:
        """Bytes counted against the capacity."""
        return self.nbytes + OVERHEAD

    @property
    def of_a_step(self) -> bool:
        """Whether it is part of what a step says: it goes when the step is dropped."""
        return self.kind in {"batch", "geometry"}


NUDGE = Message(kind="nudge", step=-1)
"""Never held nor sent: tells the sender that something else than the buffer wants its attention."""


class InFlight(NamedTuple):
    """All that is remembered of a message that is on disk, was sent, and is not acknowledged."""

    kind: Kind
    sequence: int
    samples: int


class MessageQueue:
    """Messages in order, any of which can be taken out at once, however many there are."""

    def __init__(self) -> None:
        self.first: Message | None = None
        self._last: Message | None = None
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Message]:
        """In order; the message just given may be removed meanwhile."""
        message = self.first
        while message is not None:
            after = message.after
            yield message
            message = after

    def append(self, message: Message) -> None:
        """Put a message last."""
        message.before = self._last
        if self._last is None:
            self.first = message
        else:
            self._last.after = message
        self._last = message
        self._length += 1

    def remove(self, message: Message) -> None:
        """Take a message out that is in the queue."""
        if message.before is None:
            self.first = message.after
        else:
            message.before.after = message.after
        if message.after is None:
            self._last = message.before
        else:
            message.after.before = message.before
        message.before = message.after = None
        self._length -= 1
