"""The buffer with a disk behind it, step by step in any order, against what any queue must do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pathwatch.client import backlog
from pathwatch.client.backlog import Reading, Segment
from pathwatch.client.buffer import SendBuffer
from pathwatch.client.messages import OVERHEAD, Message
from pathwatch.v1 import routing_pb2, run_pb2

SIZE = OVERHEAD + 100
CAPACITY = 10 * SIZE
FRAME = 10


IN_FLIGHT = 8


@pytest.fixture(autouse=True)
def _few_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "_MOST_IN_FLIGHT", IN_FLIGHT)


class Answering(threading.Condition):
    """Whoever waits, in this one thread, is told what happens next."""

    def __init__(self, happens: Callable[[], None]) -> None:
        super().__init__()
        self._happens = happens

    def wait(self, timeout: float | None = None) -> bool:
        self._happens()
        return True


class Spooling(RuleBasedStateMachine):
    """Numbered messages; the disk is a mapping. Reading and writing take time: much may happen meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = SendBuffer(CAPACITY)
        self.buffer._changed = Answering(self._while_waiting)
        self.buffer.spool_from(-1, lambda: None)
        self.disk: dict[Path, list[Message]] = {}
        self.segment: Segment | None = None
        self.writing: list[tuple[Message, Message]] = []
        """Messages being written, and what is written."""
        self.reading: tuple[Reading, list[Message]] | None = None
        self.numbers: dict[int, int] = {}
        """Number of the message with a sequence; it never changes."""
        self.step = 0
        self.batches = self.checkpoints = 0
        self.made = 0
        self.files = 0
        self.registered: set[int] = set()
        self.delivered: set[int] = set()
        """Numbers of acknowledged batches."""
        self.reconnect()

    def _message(self, number: int, kind: str, step: int, sequence: int = 0) -> Message:
        if kind == "checkpoint":
            checkpoint = run_pb2.Checkpoint(tag=str(number))
            return Message(kind="checkpoint", step=step, checkpoint=checkpoint, sequence=sequence)
        request = routing_pb2.StreamRoutingRequest()
        request.batch.group = str(number)
        return Message(
            kind="batch", step=step, encode=lambda: request, nbytes=100, samples=1, sequence=sequence
        )

    def _number(self, message: Message) -> int:
        if message.checkpoint is not None:
            return int(message.checkpoint.tag)
        assert message.encode is not None
        return int(message.encode().batch.group)

    @rule(advance=st.booleans())
    def add(self, advance: bool) -> None:
        self.step += advance
        self.made += 1
        self.batches += 1
        self.buffer.add(self._message(self.made, "batch", self.step))

    @precondition(lambda self: self.checkpoints < 3)
    @rule()
    def add_checkpoint(self) -> None:
        self.made += 1
        self.checkpoints += 1
        self.buffer.add(self._message(self.made, "checkpoint", self.step))

    @rule()
    def reconnect(self) -> None:
        self.generation = self.buffer.rewind()
        self.in_flight: list[Message] = []
        self.sent_through = 0
        self.buffer.acknowledge(0)  # the hello

    @precondition(lambda self: not self.writing)
    @rule(count=st.integers(1, 6))
    def begin_to_write(self, count: int) -> None:
        self.writing = [(m, self._copy(m)) for m in self.buffer.to_spool(count * SIZE)]

    def _copy(self, message: Message) -> Message:
        """As it is read from disk."""
        copy = self._message(self._number(message), message.kind, message.step, message.sequence)
        copy.done = True
        return copy

    @precondition(lambda self: self.writing)
    @rule(succeeds=st.booleans(), new_file=st.booleans())
    def end_writing(self, succeeds: bool, new_file: bool) -> None:
        if succeeds:
            if new_file or self.segment is None:
                self.files += 1
                self.segment = Segment(path=Path(str(self.files)), seed=0, start=0, nbytes=0)
                self.disk[self.segment.path] = []
            frames = self.disk[self.segment.path]
            written = [
                (message, (len(frames) + place) * FRAME)
                for place, (message, _) in enumerate(self.writing, start=1)
            ]
            frames.extend(copy for _, copy in self.writing)
            self.buffer.spooled(self.segment, written)
        else:
            self.segment = None
        self.writing = []

    @precondition(lambda self: self.reading is None)
    @rule(count=st.integers(1, 4))
    def begin_to_read(self, count: int) -> None:
        reading = self.buffer.reading()
        if reading is None:
            return
        if reading.segment is self.segment:
            self.segment = None
        first = reading.offset // FRAME
        last = min(first + count, reading.segment.nbytes // FRAME)
        frames = self.disk[reading.segment.path][first:last]
        copies = [self._copy(message) for message in frames]
        self.reading = reading, copies

    @precondition(lambda self: self.reading is not None)
    @rule()
    def end_reading(self) -> None:
        assert self.reading is not None
        reading, copies = self.reading
        self.reading = None
        self.buffer.loaded(reading, copies, reading.offset + FRAME * len(copies))

    @rule()
    def delete_what_has_ended(self) -> None:
        for segment in self.buffer.take_ended_segments():
            del self.disk[segment.path]
            if segment is self.segment:
                self.segment = None

    @rule()
    def drop_oldest_file(self) -> None:
        for segment in self.buffer.segments[:1]:
            frames = self.disk[segment.path]
            checkpoints = [self._copy(message) for message in frames if message.checkpoint]
            if segment is self.segment:
                self.segment = None
            self.buffer.drop_segment(segment, checkpoints)

    @rule(fails=st.booleans())
    def send(self, fails: bool) -> None:
        message = self.buffer.take(self.generation)
        if message is None:
            return
        if message.kind == "checkpoint":
            # Its call would overtake them; those that were dropped are no longer waited for.
            assert not self.in_flight or self.buffer.counts.dropped_observations
            number = self._number(message)
            assert number > self.sent_through
            if fails:
                self.reconnect()
            else:
                self.sent_through = number
                self.registered.add(number)
                self.buffer.discard(message)
            return
        if message.encode is None:
            return  # dropped since
        number = self._number(message)
        assert number > self.sent_through, "out of order, or twice on one connection"
        assert self.numbers.setdefault(message.sequence, number) == number
        assert message.sequence > max((m.sequence for m in self.in_flight), default=0)
        self.sent_through = number
        self.in_flight.append(message)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, len(self.in_flight)))
        self._acknowledge(count)

    def _acknowledge(self, count: int) -> None:
        done, self.in_flight = self.in_flight[:count], self.in_flight[count:]
        self.delivered |= {self.numbers[message.sequence] for message in done}
        self.buffer.acknowledge(done[-1].sequence)

    def _while_waiting(self) -> None:
        """`take` waits: the disk answers, else the server, else the connection breaks."""
        if self.reading is None:
            self.begin_to_read(2)
        if self.reading is not None:
            self.end_reading()
        elif self.in_flight:
            self._acknowledge(len(self.in_flight))
        else:
            self.reconnect()

    @invariant()
    def bounded(self) -> None:
        assert self.buffer.nbytes <= CAPACITY

    def teardown(self) -> None:
        """In the end all is delivered that was not counted as dropped."""
        if self.writing:
            self.end_writing(succeeds=True, new_file=False)
        deadline = time.monotonic() + 60
        self.reconnect()
        while not self.buffer.wait_empty(0):
            assert time.monotonic() < deadline, "never empty"
            self.send(fails=False)
            if self.in_flight:
                self._acknowledge(len(self.in_flight))
        counts = self.buffer.counts
        assert len(self.registered) == self.checkpoints
        # What was dropped after it was sent may have arrived all the same.
        assert self.batches <= len(self.delivered) + counts.dropped_observations
        assert counts.acked + counts.dropped_observations == self.batches
        self.delete_what_has_ended()
        assert not self.disk


TestSpooling: Callable[..., None] = pytest.mark.slow(Spooling.TestCase)
TestSpooling.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)


class Clock:
    """Stands in for the module `time`."""

    sleep = staticmethod(time.sleep)

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("pathwatch.client.buffer.time", self)

    def monotonic(self) -> float:
        return self.now


def spooled(buffer: SendBuffer) -> tuple[Segment, list[Message]]:
    """All that is in memory goes to a file; the file, and what is read from it."""
    buffer.spool_from(-1, lambda: None)
    chosen = buffer.to_spool(1 << 30)
    copies = [
        replace(m, encode=routing_pb2.StreamRoutingRequest, before=None, after=None, done=True)
        for m in chosen
    ]
    segment = Segment(path=Path("none"), seed=0, start=0, nbytes=0)
    buffer.spooled(segment, [(m, FRAME * place) for place, m in enumerate(chosen, start=1)])
    return segment, copies


def batch(step: int, nbytes: int = 100) -> Message:
    return Message(kind="batch", step=step, encode=routing_pb2.StreamRoutingRequest, nbytes=nbytes, samples=1)


def test_a_step_on_disk_is_not_lost_with_its_watermark_in_memory() -> None:
    """Its watermark is all that is left of it in memory, and the first to go; the next one covers it."""
    buffer = SendBuffer(CAPACITY)
    buffer.add(batch(1))
    segment, copies = spooled(buffer)
    buffer.add(Message(kind="watermark", step=1, encode=routing_pb2.StreamRoutingRequest))
    for step in range(2, 13):
        buffer.add(batch(step))
    dropped = buffer.counts.dropped_steps
    assert dropped == buffer.counts.dropped_observations > 0
    generation = buffer.rewind()
    buffer._changed = Answering(lambda: buffer.loaded(buffer.reading(), copies, segment.nbytes))  # type: ignore[arg-type,func-returns-value]
    taken = buffer.take(generation)
    assert taken is not None
    assert taken.step == 1
    assert (buffer.counts.dropped_steps, buffer.counts.dropped_observations) == (dropped, dropped)


def test_a_step_that_goes_on_in_memory_is_dropped_with_its_file_and_counted_once() -> None:
    buffer = SendBuffer(CAPACITY)
    buffer.add(batch(1))
    segment, _ = spooled(buffer)
    buffer.add(batch(1))
    buffer.drop_segment(segment)
    assert not buffer.add(batch(1))
    assert (buffer.counts.dropped_steps, buffer.counts.dropped_observations) == (1, 3)


def test_a_wait_for_the_server_is_no_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint waits for acknowledgements for minutes and is spooled then: nothing of it is given up."""
    clock = Clock(monkeypatch)
    buffer = SendBuffer(CAPACITY)
    buffer.add(batch(1))
    buffer.add(Message(kind="checkpoint", step=1, checkpoint=run_pb2.Checkpoint(tag="x")))
    generation = buffer.rewind()
    sent = buffer.take(generation)
    assert sent is not None
    copies: list[Message] = []

    def spool() -> None:
        clock.now += 600
        copies.extend(spooled(buffer)[1])

    def load() -> None:
        reading = buffer.reading()
        assert reading is not None
        buffer.loaded(reading, copies, reading.segment.nbytes)

    events = iter([spool, load, lambda: buffer.acknowledge(sent.sequence)])
    buffer._changed = Answering(lambda: next(events)())
    taken = buffer.take(generation)
    assert taken is not None
    assert taken.checkpoint is not None
    assert buffer.counts.dropped_observations == 0


def test_what_is_in_flight_from_disk_is_bounded_and_a_silent_server_is_no_hung_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    buffer = SendBuffer(100 * SIZE)
    for step in range(5 * IN_FLIGHT):
        buffer.add(batch(step))
    segment, copies = spooled(buffer)
    in_flight: list[Message] = []
    most, asked = 0, clock.now

    def wait() -> None:
        nonlocal most, asked
        if (reading := buffer.reading()) is not None:
            buffer.loaded(reading, copies, segment.nbytes)
            return
        most = max(most, len(in_flight))
        clock.now += 40
        if clock.now > asked + 200:  # it was woken several times, for nothing
            asked = clock.now
            buffer.acknowledge(in_flight[-1].sequence)
            in_flight.clear()

    generation = buffer.rewind()
    buffer._changed = Answering(wait)
    for _ in range(5 * IN_FLIGHT):
        message = buffer.take(generation)
        assert message is not None
        in_flight.append(message)
        assert len(in_flight) <= IN_FLIGHT
    buffer.acknowledge(in_flight[-1].sequence)
    assert most == IN_FLIGHT
    assert buffer.wait_empty(0)
    assert buffer.counts.acked == 5 * IN_FLIGHT
    assert buffer.counts.dropped_observations == 0


def test_what_is_read_back_larger_than_the_server_takes_is_counted_once() -> None:
    buffer = SendBuffer(CAPACITY)
    for step, nbytes in enumerate((100, 5000, 100)):
        buffer.add(batch(step, nbytes))
    segment, copies = spooled(buffer)
    buffer.limit(2000)
    for found in (1, 0):
        generation = buffer.rewind()
        refused = []

        def load() -> None:
            reading = buffer.reading()
            assert reading is not None
            refused.append(buffer.loaded(reading, copies, segment.nbytes))  # noqa: B023

        buffer._changed = Answering(load)
        taken = [buffer.take(generation) for _ in range(2)]
        assert [message.step for message in taken if message] == [0, 2]
        assert refused == [found]
    buffer.acknowledge(3)
    assert buffer.wait_empty(0)
    assert (buffer.counts.acked, buffer.counts.dropped_observations) == (2, 1)
