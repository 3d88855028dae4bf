"""What of a session is on disk, how far it was read, sent and acknowledged. Touches no file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pathwatch.client.messages import InFlight, Kind, Message

_MOST_IN_FLIGHT = 10_000
"""Messages: beyond, acknowledgements are waited for, so that memory is bounded while none comes."""


@dataclass(slots=True, eq=False, kw_only=True)
class Segment:
    """One spool file and what it holds."""

    path: Path
    seed: int
    """What the checksums of its heads start from."""
    start: int
    """Offset of the first frame."""
    nbytes: int
    """Bytes of the file, up to the end of the last whole frame."""
    newest_step: int = -1
    """Largest step that it, or one before it, holds observations or geometry of."""
    steps: int = 0
    """Steps that begin in it."""
    samples: int = 0
    """Observations that are neither delivered nor counted as lost."""
    checked: int = 0
    """Up to where damage was counted."""
    counted: set[int] = field(default_factory=set)
    """Sequences of messages that were settled while they were being written, or dropped and counted since."""
    checkpoints: int = 0
    last_message: int = 0
    """Largest sequence that the server will acknowledge."""
    last_checkpoint: int = 0
    """Largest sequence of a checkpoint."""

    def note(self, kind: Kind, step: int, sequence: int, samples: int, end: int) -> None:
        """A frame of that content stands before `end`."""
        self.nbytes = end
        if kind == "checkpoint":
            self.checkpoints += 1
            self.last_checkpoint = sequence
            return
        self.last_message = sequence
        self.samples += samples
        if kind != "watermark" and step > self.newest_step:
            self.newest_step = step
            self.steps += 1


@dataclass(frozen=True, slots=True)
class Reading:
    """What is to be read next: frames of a segment from `offset` on."""

    segment: Segment
    offset: int
    nbytes: int
    """How much, about."""


class Backlog:
    """Segments in the order of their sequences, all before what is in memory. The caller serializes calls."""

    def __init__(self, segments: Iterable[Segment] = ()) -> None:
        self.sent = 0
        """Largest sequence sent on the present connection, or acknowledged before."""
        self.newest_step = -1
        """Largest step that anything was ever spooled of."""
        self._read: deque[Segment] = deque()
        self._unread: deque[Segment] = deque(segments)
        self._offset = 0
        self._loaded: deque[Message] = deque()
        self.loaded_bytes = 0
        """Bytes in memory: what was read and not yet sent."""
        self._rescued: deque[Message] = deque()
        self._flying: deque[InFlight] = deque()
        self._ended: list[Segment] = []
        self._acked = 0
        self._registered = 0
        self._dropped_through = -1
        self._torn: set[int] = set()
        self._found = (0, 0)

    @property
    def segments(self) -> Iterator[Segment]:
        """Oldest first."""
        yield from self._read
        yield from self._unread

    @property
    def nbytes(self) -> int:
        """Bytes on disk, not counting files that are about to be deleted."""
        return sum(segment.nbytes for segment in self.segments)

    @property
    def empty(self) -> bool:
        """Whether nothing on disk is still to be delivered."""
        return not (self._read or self._unread or self._rescued)

    @property
    def in_flight(self) -> bool:
        """Whether something from disk was sent and not acknowledged."""
        return bool(self._flying)

    @property
    def first_in_flight(self) -> InFlight | None:
        """The oldest that was sent from disk and not acknowledged."""
        return self._flying[0] if self._flying else None

    @property
    def awaits_acknowledgements(self) -> bool:
        """Whether so much was sent that nothing more is until the server answers."""
        return len(self._flying) >= _MOST_IN_FLIGHT

    @property
    def waiting(self) -> bool:
        """Whether something must be sent before what is in memory."""
        self._forget_registered()
        return bool(self._rescued or self._loaded or any(self._unsent(segment) for segment in self._unread))

    @property
    def next(self) -> Message | None:
        """What is to be sent next; None while it is still to be read."""
        self._forget_registered()
        return (self._rescued or self._loaded or (None,))[0]

    def take(self, message: Message) -> None:
        """`next` is being sent."""
        if self._loaded and message is self._loaded[0]:
            self._let_go()
            if message.kind != "checkpoint":
                self.fly(message)
        self.sent = max(self.sent, message.sequence)

    def fly(self, message: Message) -> None:
        """A message that is on disk was sent."""
        self._flying.append(InFlight(message.kind, message.sequence, message.samples))

    def reading(self, room: int) -> Reading | None:
        """What to read next, where less than `room` bytes wait to be sent."""
        while self._unread and not self._offset and not self._unsent(self._unread[0]):
            self._read.append(self._unread.popleft())
        if not self._unread or self.loaded_bytes >= room:
            return None
        segment = self._unread[0]
        return Reading(segment, self._offset or segment.start, room)

    def loaded(
        self, reading: Reading, messages: Iterable[Message], offset: int, largest: float
    ) -> tuple[int, int]:
        """What was read, up to `offset`.

        Returns how many observations among it are lost, because they belong to dropped steps or to messages
        of more than `largest` bytes, and how many such messages there are.
        """
        if not self._unread or self._unread[0] is not reading.segment:
            return 0, 0
        if (self._offset or reading.segment.start) != reading.offset:
            return 0, 0
        lost = too_large = 0
        last_message, last_checkpoint = self._found
        for message in messages:
            if message.sequence <= max(last_message, last_checkpoint):
                continue  # the file holds a piece of itself twice
            if message.sequence in reading.segment.counted:
                continue
            if self._is_dropped(message):
                reading.segment.counted.add(message.sequence)
                lost += message.samples
                continue
            if message.nbytes > largest and message.sequence > max(self.sent, self._registered):
                reading.segment.counted.add(message.sequence)
                lost += message.samples
                too_large += 1
                continue
            if message.kind == "checkpoint":
                last_checkpoint = message.sequence
                wanted = message.sequence > self._registered
            else:
                last_message = message.sequence
                wanted = message.sequence > self.sent
            if wanted:
                self._loaded.append(message)
                self.loaded_bytes += message.size
        self._found = last_message, last_checkpoint
        self._offset = offset
        reading.segment.samples -= lost
        if offset >= reading.segment.nbytes:
            # What is damaged or dropped is never sent, hence never acknowledged.
            segment = self._unread.popleft()
            segment.last_message, segment.last_checkpoint = self._found
            self._read.append(segment)
            self._start_segment()
            self._settle()
        return lost, too_large

    def append(self, segment: Segment) -> None:
        """The segment is being written, after all others."""
        if segment in self._ended:
            self._ended.remove(segment)
        if self._read and self._read[-1] is segment:
            self._read.pop()
        if segment not in self._unread:
            self._unread.append(segment)
        self._settle()

    def tear(self, step: int) -> None:
        """The step was dropped from memory: what is on disk of it is not to be sent either."""
        if step <= self.newest_step:
            self._torn.add(step)

    def rewind(self) -> None:
        """A new connection: all that is not acknowledged is to be sent again."""
        self._unread.extendleft(reversed(self._read))
        self._read.clear()
        self._loaded.clear()
        self.loaded_bytes = 0
        self._flying.clear()
        self._start_segment()
        self.sent = self._acked

    def acknowledge(self, sequence: int) -> list[InFlight]:
        """The server has all up to `sequence`; those of them that were sent from here on this connection."""
        self._acked = max(self._acked, sequence)
        self.sent = max(self.sent, sequence)
        done = []
        segments = self.segments
        segment = next(segments, None)
        while self._flying and self._flying[0].sequence <= sequence:
            message = self._flying.popleft()
            while segment is not None and segment.last_message < message.sequence:
                segment = next(segments, None)
            if segment is not None:
                segment.samples -= message.samples
            done.append(message)
        while self._loaded and self._loaded[0].kind != "checkpoint" and self._loaded[0].sequence <= sequence:
            self._let_go()
        self._settle()
        return done

    def register(self, sequence: int) -> None:
        """The checkpoint of that sequence was registered or refused."""
        self._registered = max(self._registered, sequence)
        self._forget_registered()
        self._settle()

    def drop(self, segment: Segment, checkpoints: Iterable[Message]) -> None:
        """Let the oldest segment go, but for the checkpoints in it."""
        self._dropped_through = max(self._dropped_through, segment.newest_step)
        self._rescued.extend(message for message in checkpoints if message.sequence > self._registered)
        if segment in self._read:
            self._read.remove(segment)
        else:
            self._unread.remove(segment)
            self._start_segment()
        last = max(segment.last_message, segment.last_checkpoint)
        self._loaded = deque(
            message for message in self._loaded if message.sequence > last and not self._is_dropped(message)
        )
        self.loaded_bytes = sum(message.size for message in self._loaded)
        self._flying = deque(message for message in self._flying if message.sequence > last)
        self._ended.append(segment)

    @property
    def has_ended(self) -> bool:
        """Whether there are files of no more use."""
        return bool(self._ended)

    def take_ended(self) -> list[Segment]:
        """Segments whose files are of no more use."""
        ended, self._ended = self._ended, []
        return ended

    def _unsent(self, segment: Segment) -> bool:
        return segment.last_message > self.sent or segment.last_checkpoint > self._registered

    def _start_segment(self) -> None:
        self._offset = 0
        self._found = (0, 0)

    def _forget_registered(self) -> None:
        while self._rescued and self._rescued[0].sequence <= self._registered:
            self._rescued.popleft()
        while (
            self._loaded
            and self._loaded[0].kind == "checkpoint"
            and self._loaded[0].sequence <= self._registered
        ):
            self._let_go()

    def _let_go(self) -> None:
        self.loaded_bytes -= self._loaded.popleft().size

    def _is_dropped(self, message: Message) -> bool:
        return message.of_a_step and (message.step <= self._dropped_through or message.step in self._torn)

    def _settle(self) -> None:
        """Segments of which nothing is owed any more have ended."""
        for queue in (self._read, self._unread):
            while queue and not self._owed(queue[0]):
                if queue is self._unread:
                    self._start_segment()
                self._ended.append(queue.popleft())
            if queue:
                return
        self._torn.clear()

    def _owed(self, segment: Segment) -> bool:
        return segment.last_message > self._acked or segment.last_checkpoint > self._registered
