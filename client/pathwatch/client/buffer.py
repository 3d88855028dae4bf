"""What waits to be sent or acknowledged: bounded, in order, whole oldest steps first to go."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from pathwatch.v1 import routing_pb2, run_pb2

Kind: TypeAlias = Literal["batch", "watermark", "geometry", "checkpoint"]

OVERHEAD = 1024
"""Bytes counted for every message beside its arrays, so that many small messages are bounded too."""


@dataclass(slots=True, eq=False, kw_only=True)
class Message:
    """One entry of the buffer."""

    kind: Kind
    step: int
    encode: Callable[[], routing_pb2.StreamRoutingRequest] | None = None
    """Makes the message to send, its sequence still 0; None for a checkpoint, which is a call of its own."""
    checkpoint: run_pb2.Checkpoint | None = None
    nbytes: int = 0
    samples: int = 0
    sequence: int = 0
    """Given when first sent and kept for ever, so that a resent message is recognised; 0 = not yet sent."""
    done: bool = False
    """Acknowledged, dropped or discarded: no longer held."""

    @property
    def size(self) -> int:
        """Bytes counted against the capacity."""
        return self.nbytes + OVERHEAD


@dataclass(slots=True)
class Counts:
    """What happened to messages since the buffer was made."""

    sent: int = 0
    acked: int = 0
    dropped_steps: int = 0
    dropped_observations: int = 0


class SendBuffer:
    """First in, first out; kept until acknowledged. Safe for any number of threads.

    When full, the smallest step is dropped with all its messages, and so is whatever still comes for it. Its
    watermark may go with it: the next one covers it. Checkpoints are never dropped.
    """

    def __init__(self, capacity: int) -> None:
        """At most `capacity` bytes are held."""
        self._capacity = capacity
        self._largest = capacity
        self._changed = threading.Condition()
        self._unsent: deque[Message] = deque()
        self._unacked: deque[Message] = deque()
        self._calling: Message | None = None
        self._steps: dict[int, deque[Message]] = {}
        self._order: list[int] = []
        self._dropped_through = -1
        self._bytes = 0
        self._held = 0
        self._sequence = 0
        self._generation = 0
        self._closed = False
        self._counts = Counts()

    @property
    def nbytes(self) -> int:
        """Bytes held, overhead included."""
        return self._bytes

    @property
    def counts(self) -> Counts:
        """What happened so far."""
        with self._changed:
            return replace(self._counts)

    def add(self, message: Message) -> bool:
        """Append a message; False if it or an older step had to be dropped.

        Raises:
            ValueError: the message alone is larger than the buffer, or than the server takes.
        """
        if message.size > self._largest:
            raise ValueError(
                f"{message.kind} of {message.nbytes} bytes is over the limit of {self._largest - OVERHEAD}"
            )
        with self._changed:
            full = False
            while self._bytes + message.size > self._capacity and self._order:
                self._drop_step(self._order[0])
                full = True
            lost = message.kind in {"batch", "geometry"} and message.step <= self._dropped_through
            if lost or self._bytes + message.size > self._capacity:
                self._counts.dropped_observations += message.samples
                return False
            self._unsent.append(message)
            self._bytes += message.size
            self._held += 1
            if message.kind != "checkpoint":
                if message.step not in self._steps:
                    self._steps[message.step] = deque()
                    insort(self._order, message.step)
                self._steps[message.step].append(message)
            self._changed.notify_all()
            return not full

    def rewind(self) -> int:
        """Everything not acknowledged is to be sent again, in order; the generation that may now `take`."""
        with self._changed:
            if self._calling is not None:
                self._unsent.appendleft(self._calling)
                self._calling = None
            self._unsent.extendleft(reversed(self._unacked))
            self._unacked.clear()
            self._generation += 1
            self._changed.notify_all()
            return self._generation

    def take(self, generation: int) -> Message | None:
        """Wait for the next message to send; None once the generation is over."""
        with self._changed:
            while True:
                if self._closed or generation != self._generation:
                    return None
                if self._unsent:
                    break
                self._changed.wait()
            message = self._unsent.popleft()
            if message.kind == "checkpoint":
                self._calling = message
                return message
            if message.sequence == 0:
                self._sequence += 1
                message.sequence = self._sequence
            self._unacked.append(message)
            self._counts.sent += 1
            return message

    def acknowledge(self, sequence: int) -> list[Message]:
        """Messages up to `sequence` are done with; those that were still held."""
        done = []
        with self._changed:
            for queue in (self._unacked, self._unsent):
                while queue and 0 < queue[0].sequence <= sequence:
                    message = queue.popleft()
                    self._release(message)
                    done.append(message)
            self._counts.acked += len(done)
            self._changed.notify_all()
        return done

    def discard(self, message: Message) -> None:
        """One message is done with: a checkpoint that was registered, or a message that cannot be sent."""
        with self._changed:
            if not message.done:
                self._unqueue(message)
                self._release(message)
            self._changed.notify_all()

    def limit(self, nbytes: int) -> list[Message]:
        """From now on hold no message that is encoded in more than `nbytes`; those that were held."""
        self._largest = min(self._largest, nbytes)
        with self._changed:
            suspects = [
                (message, message.encode)
                for message in (*self._unacked, *self._unsent)
                if message.size > nbytes and message.encode is not None
            ]
        larger = [message for message, encode in suspects if encode().ByteSize() > nbytes]
        for message in larger:
            self.discard(message)
        return larger

    def wait_empty(self, timeout: float) -> bool:
        """True once nothing is held; False after `timeout` seconds or when closed with messages in it."""
        with self._changed:
            self._changed.wait_for(lambda: self._held == 0 or self._closed, timeout)
            return self._held == 0

    def close(self) -> None:
        """Nothing is sent any more; whoever waits is woken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _drop_step(self, step: int) -> None:
        messages = self._steps[step]
        self._counts.dropped_observations += sum(message.samples for message in messages)
        self._counts.dropped_steps += any(message.kind != "watermark" for message in messages)
        self._dropped_through = max(self._dropped_through, step)
        for message in tuple(messages):
            self._unqueue(message)
            self._release(message)

    def _unqueue(self, message: Message) -> None:
        """Quick for the oldest messages, which stand in front."""
        if message is self._calling:
            self._calling = None
        elif message in self._unacked:
            self._unacked.remove(message)
        else:
            self._unsent.remove(message)

    def _release(self, message: Message) -> None:
        self._bytes -= message.size
        self._held -= 1
        message.done = True
        message.encode = None
        if message.kind == "checkpoint":
            return
        messages = self._steps[message.step]
        messages.remove(message)
        if not messages:
            del self._steps[message.step]
            del self._order[bisect_left(self._order, message.step)]
