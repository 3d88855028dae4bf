"""What waits to be sent or acknowledged: bounded, in order, whole oldest steps first to go."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from pathwatch.client.backlog import Backlog, Reading, Segment
from pathwatch.client.logs import QuietLogger
from pathwatch.client.messages import NUDGE, OVERHEAD, InFlight, Message, MessageQueue
from pathwatch.client.step_counts import StepCounts

_logger = QuietLogger("pathwatch.client")

_HUNG = 60.0
"""Seconds without an answer of the file system after which what is on disk no longer holds up the rest."""
_AT_ONCE = 50
"""Messages settled under one hold of the lock, well under 1 ms: training adds messages under the same."""
_BREATH = 1e-5
"""Seconds between two such holds, for whoever waits for the lock to get it."""
_READ_AHEAD = 1 << 20
"""Bytes read before they are sent."""
_REMEMBERED = 1000
"""Dropped steps that are remembered, so that each is counted once whatever still comes for it."""
_PATIENCE = 10.0
"""Seconds without an acknowledgement after which all that waits is spooled: memory ends with the process."""


@dataclass(slots=True)
class Counts:
    """What happened to messages since the buffer was made."""

    sent: int = 0
    acked: int = 0
    dropped_steps: int = 0
    dropped_observations: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            sent=self.sent + other.sent,
            acked=self.acked + other.acked,
            dropped_steps=self.dropped_steps + other.dropped_steps,
            dropped_observations=self.dropped_observations + other.dropped_observations,
        )


class SendBuffer:
    """First in, first out; kept until acknowledged. Safe for any number of threads.

    When full, the smallest step is dropped with all its messages, and so is whatever still comes for it. Its
    watermark may go with it: the next one covers it. Checkpoints are never dropped.

    With a spool the oldest messages are moved to files before that, by the spool's thread (`to_spool`,
    `spooled`, `reading`, `loaded`): no call but `take` ever waits for a file.
    """

    def __init__(self, capacity: int, leftovers: Iterable[Segment] | None = None) -> None:
        """At most `capacity` bytes are held.

        `leftovers`: files of a session that has ended; they are all there is to send.
        """
        self._capacity = capacity
        self._largest = capacity
        self._server_takes: float = math.inf
        self._changed = threading.Condition()
        self._queue = MessageQueue()
        self._next: Message | None = None
        """First one not sent on this connection."""
        self._steps = StepCounts()
        self._dropped_through = -1
        self._given_up: dict[int, None] = {}
        """Steps that are counted as dropped, the last ones."""
        self._bytes = 0
        self._reserved = 0
        self._nudged = False
        self._sequence = 0
        self._generation = 0
        self._answered = False
        self._closed = False
        self._counts = Counts()
        self._ends = leftovers is not None
        self._disk = Backlog(leftovers or ())
        self._reads = False
        """A connection waits for what is on disk."""
        self._read_ahead = _READ_AHEAD if self._ends else min(_READ_AHEAD, capacity // 8)
        self._spool_from: int | None = None
        self._wake_spool: Callable[[], None] = lambda: None
        self._progress = time.monotonic()

    @property
    def nbytes(self) -> int:
        """Bytes held in memory, overhead included."""
        return self._bytes + self._reserved

    @property
    def spooled_bytes(self) -> int:
        """Bytes held on disk."""
        with self._changed:
            return self._disk.nbytes

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
            while not self._fits(message) and (step := self._steps.smallest) is not None:
                self._drop_step(step)
                full = True
            if (message.of_a_step and message.step <= self._dropped_through) or not self._fits(message):
                self._counts.dropped_observations += message.samples
                if message.of_a_step:
                    self._give_up_step(message.step)
                return False
            if not self._queue:
                self._progress = time.monotonic()
            self._queue.append(message)
            self._next = self._next or message
            self._bytes += message.size
            if message.kind != "checkpoint":
                self._steps.add(message.step)
            self._changed.notify_all()
            if self._spool_from is not None and self._bytes > self._spool_from:
                self._wake_spool()
            return not full

    def reserve(self, nbytes: int) -> None:
        """From now on so many bytes of the capacity are held elsewhere."""
        self._reserved = nbytes

    @property
    def has_unsent(self) -> bool:
        """Whether there is something that was not sent on this connection."""
        with self._changed:
            return self._next is not None or self._disk.waiting

    def nudge(self) -> None:
        """Have `take` give a NUDGE once there is nothing else to send."""
        with self._changed:
            self._nudged = True
            self._changed.notify_all()

    def rewind(self) -> int:
        """Everything not acknowledged is to be sent again, in order; the generation that may now `take`."""
        with self._changed:
            self._next = self._queue.first
            self._disk.rewind()
            self._reads = False
            self._generation += 1
            self._answered = False
            self._changed.notify_all()
            return self._generation

    def take(self, generation: int) -> Message | None:
        """Wait for the next message to send, or a NUDGE; None once the generation is over, or with it all
        leftovers."""
        hung_at = time.monotonic() + _HUNG
        with self._changed:
            while True:
                if self._closed or generation != self._generation:
                    return None
                full = self._disk.awaits_acknowledgements
                from_disk = self._disk.waiting
                self._reads = from_disk and not full
                message = None if full else self._disk.next if from_disk else self._next
                if message is None and self._nudged and not (full or from_disk):
                    self._nudged = False
                    return NUDGE
                if message is not None and (message.kind != "checkpoint" or self._may_call()):
                    break
                if message is not None or full or not from_disk:
                    if message is None and not full and self._ends:
                        return None
                    self._changed.wait()
                    hung_at = time.monotonic() + _HUNG  # so far it was not the disk that was awaited
                elif time.monotonic() < hung_at:
                    self._wake_spool()
                    self._changed.wait(hung_at - time.monotonic())
                else:
                    self._give_up_disk()
            if from_disk:
                self._disk.take(message)
                self._wake_spool()
            else:
                self._next = message.after
            if message.kind != "checkpoint":
                self._number(message)
                self._disk.sent = max(self._disk.sent, message.sequence)
                self._counts.sent += 1
            return message

    def acknowledge(self, sequence: int) -> list[Message | InFlight]:
        """Messages up to `sequence` are done with; those that were still held or in flight."""
        done: list[Message | InFlight] = []
        while self._acknowledge_some(sequence, done):
            time.sleep(_BREATH)
        return done

    def discard(self, message: Message) -> None:
        """One message is done with: a checkpoint that was registered, or a message that cannot be sent."""
        with self._changed:
            if message.kind == "checkpoint" and message.sequence:
                self._disk.register(message.sequence)
            if not message.done:
                self._release(message)
            self._disk_changed()

    def limit(self, nbytes: int) -> list[Message]:
        """From now on take no message encoded in more than `nbytes`; those that are held, to be discarded."""
        with self._changed:
            self._largest = min(self._largest, nbytes)
            self._server_takes = min(self._server_takes, nbytes)
            suspects = [
                (message, message.encode)
                for message in self._queue
                if message.size > nbytes and message.encode is not None
            ]
        return [message for message, encode in suspects if encode().ByteSize() > nbytes]

    def wait_empty(self, timeout: float) -> bool:
        """True once nothing is held; False after `timeout` seconds or when closed with messages in it."""
        with self._changed:
            self._changed.wait_for(lambda: self._empty() or self._closed, timeout)
            return self._empty()

    def close(self) -> None:
        """Nothing is sent any more; whoever waits is woken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # For the spool's thread.

    def spool_from(self, nbytes: int, wake: Callable[[], None]) -> None:
        """Spool what is above `nbytes`, and whatever waits long; `wake` tells that there is work."""
        with self._changed:
            self._spool_from = nbytes
            self._wake_spool = wake
        wake()

    def to_spool(self, nbytes: int) -> list[Message]:
        """The oldest messages, to be written now, about `nbytes` of them. They stay held until `spooled`."""
        with self._changed:
            waited = time.monotonic() - self._progress > _PATIENCE
            if self._spool_from is None or not (waited or self._bytes > self._spool_from):
                return []
            chosen: list[Message] = []
            for message in self._queue:
                nbytes -= message.size
                if chosen and nbytes < 0:
                    break
                self._number(message)
                if message.of_a_step:
                    self._disk.newest_step = max(self._disk.newest_step, message.step)
                chosen.append(message)
            return chosen

    def spooled(self, segment: Segment, written: Iterable[tuple[Message, int]]) -> None:
        """Messages stand in a segment now, each up to the offset beside it: memory lets go of them."""
        left = iter(written)
        while some := list(itertools.islice(left, _AT_ONCE)):
            self._spooled_some(segment, some)
            time.sleep(_BREATH)

    def reading(self) -> Reading | None:
        """What to read from disk, if more of it is to be sent soon."""
        with self._changed:
            return self._disk.reading(self._read_ahead) if self._reads and not self._closed else None

    def loaded(self, reading: Reading, messages: Iterable[Message], offset: int) -> int:
        """What was read, up to `offset`; how many of the messages are larger than the server takes.

        Those are let go of, and what was observed in them is counted as dropped.
        """
        with self._changed:
            lost, too_large = self._disk.loaded(reading, messages, offset, self._server_takes)
            self._counts.dropped_observations += lost
            self._disk_changed()
            return too_large

    @property
    def segments(self) -> list[Segment]:
        """The files that are needed, oldest first."""
        with self._changed:
            return list(self._disk.segments)

    def drop_segment(self, segment: Segment, checkpoints: Iterable[Message] = ()) -> None:
        """Drop the oldest file's steps, what is in memory of them included; keep `checkpoints` of it."""
        with self._changed:
            if segment not in self._disk.segments:
                return  # delivered meanwhile
            self._drop_segment(segment, checkpoints)
            self._remember_given_up(segment.newest_step)  # it may go on in memory, and is counted
            while (step := self._steps.smallest) is not None and step <= segment.newest_step:
                self._drop_step(step)
            self._dropped_through = max(self._dropped_through, segment.newest_step)
            self._disk_changed()

    def take_ended_segments(self) -> list[Segment]:
        """Files of which nothing is needed any more."""
        with self._changed:
            return self._disk.take_ended()

    def count_lost(self, samples: int, segment: Segment | None = None) -> None:
        """Observations were lost, in a segment or on their way to one."""
        with self._changed:
            self._counts.dropped_observations += samples
            if segment is not None:
                segment.samples -= samples

    # Inside: a little at a time.

    def _acknowledge_some(self, sequence: int, done: list[Message | InFlight]) -> bool:
        """Settle a few of the messages up to `sequence`, the oldest; whether there may be more."""
        with self._changed:
            first = self._disk.first_in_flight or self._queue.first
            through = sequence if first is None else min(sequence, (first.sequence or sequence) + _AT_ONCE)
            now: list[Message | InFlight] = [*self._disk.acknowledge(through)]
            while (message := self._queue.first) is not None and 0 < message.sequence <= through:
                self._release(message)
                now.append(message)
            self._counts.acked += len(now)
            self._answered = True
            if now:
                self._progress = time.monotonic()
            self._disk_changed()
            done.extend(now)
            return through < sequence

    def _spooled_some(self, segment: Segment, written: Iterable[tuple[Message, int]]) -> None:
        with self._changed:
            for message, end in written:
                samples = 0 if message.done else message.samples
                segment.note(message.kind, message.step, message.sequence, samples, end)
                if message.done:  # acknowledged or dropped meanwhile
                    segment.counted.add(message.sequence)
                    continue
                if message.kind != "checkpoint" and message.sequence <= self._disk.sent:
                    self._disk.fly(message)
                encode = message.encode
                self._release(message)
                message.encode = encode  # it may be about to be sent
            self._disk.append(segment)
            self._disk_changed()

    # Inside, under the lock.

    def _fits(self, message: Message) -> bool:
        return self.nbytes + self._disk.loaded_bytes + message.size <= self._capacity

    def _empty(self) -> bool:
        return not self._queue and self._disk.empty

    def _may_call(self) -> bool:
        """A checkpoint is a call of its own and would overtake what is under way: it waits for the acks."""
        return self._answered and not self._disk.in_flight and self._queue.first is self._next

    def _number(self, message: Message) -> None:
        if message.sequence == 0:
            self._sequence += 1
            message.sequence = self._sequence

    def _drop_segment(self, segment: Segment, checkpoints: Iterable[Message] = ()) -> None:
        self._disk.drop(segment, checkpoints)
        self._counts.dropped_steps += segment.steps
        self._counts.dropped_observations += segment.samples

    def _give_up_disk(self) -> None:
        """The file system hangs: go on with what is in memory."""
        given_up = list(self._disk.segments)
        for segment in given_up:
            self._drop_segment(segment)
        nbytes = sum(segment.nbytes for segment in given_up)
        _logger.warning("pathwatch: gave up %d spooled bytes, the file system does not answer", nbytes)

    def _drop_step(self, step: int) -> None:
        left = self._steps.count(step)
        observed = False
        for message in self._queue:
            if message.step == step and message.kind != "checkpoint":
                self._counts.dropped_observations += message.samples
                observed |= message.kind != "watermark"
                self._release(message)
                left -= 1
                if left == 0:
                    break
        if observed:  # else it is whole on disk or has arrived: a later watermark covers the one that went
            self._give_up_step(step)

    def _give_up_step(self, step: int) -> None:
        """Something of the step is dropped: what else there is of it is not sent, what comes is not taken."""
        if step not in self._given_up:
            self._remember_given_up(step)
            self._counts.dropped_steps += 1
        self._dropped_through = max(self._dropped_through, step)
        self._disk.tear(step)

    def _remember_given_up(self, step: int) -> None:
        self._given_up[step] = None
        if len(self._given_up) > _REMEMBERED:
            del self._given_up[next(iter(self._given_up))]

    def _release(self, message: Message) -> None:
        if message is self._next:
            self._next = message.after
        self._queue.remove(message)
        self._bytes -= message.size
        message.done = True
        message.encode = None
        if message.kind != "checkpoint":
            self._steps.remove(message.step)

    def _disk_changed(self) -> None:
        self._changed.notify_all()
        if self._disk.has_ended:
            self._wake_spool()
