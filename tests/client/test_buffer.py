"""The send buffer against a plain model of it."""

import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, Queue

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pathwatch.client.backlog import Segment
from pathwatch.client.buffer import SendBuffer
from pathwatch.client.messages import OVERHEAD, Message
from pathwatch.v1 import routing_pb2

CAPACITY = 10 * (OVERHEAD + 100)


def message(step: int, kind: str = "batch", nbytes: int = 100) -> Message:
    return Message(
        kind=kind,
        step=step,
        encode=lambda: routing_pb2.StreamRoutingRequest(),
        nbytes=nbytes,
        samples=1 if kind == "batch" else 0,
    )


def take_all(buffer: SendBuffer, generation: int, count: int) -> list[Message]:
    return [buffer.take(generation) for _ in range(count)]


def test_a_full_buffer_drops_the_whole_oldest_step():
    buffer = SendBuffer(CAPACITY)
    for step in (1, 2):
        for _ in range(4):
            assert buffer.add(message(step))
        assert buffer.add(message(step, "watermark"))
    assert not buffer.add(message(3))
    assert (buffer.counts.dropped_steps, buffer.counts.dropped_observations) == (1, 4)
    taken = take_all(buffer, buffer.rewind(), 6)
    assert [m.step for m in taken] == [2, 2, 2, 2, 2, 3]
    assert [m.sequence for m in taken] == [1, 2, 3, 4, 5, 6]


def test_what_still_comes_for_a_dropped_step_is_dropped_too_but_its_watermark_kept():
    buffer = SendBuffer(CAPACITY)
    results = [buffer.add(message(1)) for _ in range(13)]
    assert results == [True] * 10 + [False] * 3
    assert (buffer.counts.dropped_steps, buffer.counts.dropped_observations) == (1, 13)
    assert buffer.nbytes == 0
    assert buffer.add(message(1, "watermark"))
    assert buffer.add(message(2))
    assert [m.kind for m in take_all(buffer, buffer.rewind(), 2)] == ["watermark", "batch"]


def test_a_step_that_was_sent_but_not_acknowledged_is_dropped_like_any_other():
    buffer = SendBuffer(CAPACITY)
    for _ in range(10):
        buffer.add(message(1))
    generation = buffer.rewind()
    take_all(buffer, generation, 3)
    buffer.add(message(2))
    assert buffer.counts.dropped_steps == 1
    taken = buffer.take(buffer.rewind())
    assert (taken.step, taken.sequence) == (2, 4)  # 1, 2 and 3 may have arrived: never given again


def test_checkpoints_outlive_the_steps_around_them():
    buffer = SendBuffer(CAPACITY)
    for step in range(40):
        buffer.add(message(step))
        if step < 3:
            buffer.add(message(step, "checkpoint", nbytes=0))
    generation = buffer.rewind()
    buffer.acknowledge(0)
    for _ in range(3):
        checkpoint = buffer.take(generation)
        assert checkpoint.kind == "checkpoint"
        buffer.discard(checkpoint)
    assert buffer.take(generation).kind == "batch"


def test_a_step_of_which_nothing_finds_room_is_dropped_and_counted_once():
    buffer = SendBuffer(CAPACITY)
    for number in range(10):
        buffer.add(message(number, "checkpoint", nbytes=0))
    assert not buffer.add(message(10, nbytes=1000))
    assert not buffer.add(message(10)), "a step is kept whole or not at all"
    assert (buffer.counts.dropped_steps, buffer.counts.dropped_observations) == (1, 2)
    assert not buffer.add(message(11, nbytes=1000))
    assert (buffer.counts.dropped_steps, buffer.counts.dropped_observations) == (2, 3)


def test_many_checkpoints_are_bounded_too():
    buffer = SendBuffer(CAPACITY)
    for step in range(100):
        buffer.add(message(step, "checkpoint", nbytes=0))
    assert buffer.nbytes <= CAPACITY


def test_a_message_larger_than_the_buffer_is_refused_by_name():
    buffer = SendBuffer(CAPACITY)
    buffer.add(message(1))
    with pytest.raises(ValueError, match=rf"geometry of {2 * CAPACITY} bytes"):
        buffer.add(message(1, "geometry", nbytes=2 * CAPACITY))
    assert buffer.counts.dropped_steps == 0


def test_an_outdated_generation_gets_nothing():
    buffer = SendBuffer(CAPACITY)
    old = buffer.rewind()
    buffer.rewind()
    buffer.add(message(1))
    assert buffer.take(old) is None


@pytest.mark.parametrize("sent_before", [0, 2])
def test_a_checkpoint_does_not_overtake_what_was_sent_before(sent_before):
    """Nor the hello: of an attempt that the server does not know yet it would be refused for good."""
    buffer = SendBuffer(CAPACITY)
    for step in range(sent_before):
        buffer.add(message(step))
    buffer.add(message(sent_before, "checkpoint"))
    generation = buffer.rewind()
    take_all(buffer, generation, sent_before)
    taken = []
    sender = threading.Thread(target=lambda: taken.append(buffer.take(generation).kind), daemon=True)
    sender.start()
    if sent_before:
        buffer.acknowledge(0)
    sender.join(0.1)
    assert taken == []
    buffer.acknowledge(sent_before)
    sender.join(60)
    assert taken == ["checkpoint"]


def test_a_checkpoint_being_registered_is_not_taken_for_acknowledged():
    buffer = SendBuffer(CAPACITY)
    buffer.add(message(1))
    buffer.add(message(1, "checkpoint"))
    generation = buffer.rewind()
    batch = buffer.take(generation)
    assert buffer.acknowledge(batch.sequence) == [batch]
    checkpoint = buffer.take(generation)
    assert not buffer.wait_empty(0)
    generation = buffer.rewind()  # its call failed: again
    buffer.acknowledge(batch.sequence)
    assert buffer.take(generation) is checkpoint
    buffer.discard(checkpoint)
    buffer.discard(checkpoint)
    assert buffer.wait_empty(0)
    assert buffer.nbytes == 0


@pytest.mark.parametrize("before", ["the hello", "a batch"])
def test_a_checkpoint_waits_until_all_before_it_is_acknowledged(before):
    """Its call is not on the stream, and would be faster than what is."""
    buffer = SendBuffer(CAPACITY)
    buffer.add(message(1))
    buffer.add(message(1, "checkpoint"))
    generation = buffer.rewind()
    batch = buffer.take(generation)
    if before == "the hello":
        buffer.acknowledge(batch.sequence)
        generation = buffer.rewind()
    taken: Queue[Message | None] = Queue()
    thread = threading.Thread(target=lambda: taken.put(buffer.take(generation)))
    thread.start()
    with pytest.raises(Empty):
        taken.get(timeout=0.2)
    buffer.acknowledge(batch.sequence)
    assert taken.get(timeout=60).kind == "checkpoint"
    thread.join()


@given(st.lists(st.integers(0, 30), max_size=200))
def test_whatever_the_order_of_steps_a_step_is_kept_whole_or_not_at_all(steps):
    buffer = SendBuffer(CAPACITY)
    for step in steps:
        buffer.add(message(step))
    generation = buffer.rewind()
    held = buffer.nbytes // (OVERHEAD + 100)
    kept = [m.step for m in take_all(buffer, generation, held)]
    assert kept == [step for step in steps if step in set(kept)]
    assert buffer.counts.dropped_observations == len(steps) - len(kept)
    assert buffer.counts.dropped_steps == len(set(steps) - set(kept))


class AgainstModel(RuleBasedStateMachine):
    """A server that is sometimes away; the model is a plain list of what must still arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = SendBuffer(CAPACITY)
        self.generation = self.buffer.rewind()
        self.waiting: list[Message] = []
        self.in_flight: list[Message] = []
        self.sequences: dict[Message, int] = {}
        self.step = 0

    def _still_held(self, messages: list[Message]) -> list[Message]:
        return [m for m in messages if not m.done]

    @rule(advance=st.booleans(), nbytes=st.integers(0, 1000))
    def add(self, advance: bool, nbytes: int) -> None:
        self.step += advance
        new = message(self.step, nbytes=nbytes)
        self.buffer.add(new)
        before = [m.step for m in self._still_held(self.in_flight + self.waiting)]
        assert all(step >= before[0] for step in before)
        if self.buffer.nbytes and not new.done:
            self.waiting.append(new)
        self.waiting = self._still_held(self.waiting)
        self.in_flight = self._still_held(self.in_flight)

    @precondition(lambda self: self.waiting)
    @rule()
    def send(self) -> None:
        sent = self.buffer.take(self.generation)
        assert sent is self.waiting.pop(0)
        assert self.sequences.setdefault(sent, sent.sequence) == sent.sequence
        assert sent.sequence > max((m.sequence for m in self.in_flight), default=0)
        self.in_flight.append(sent)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, len(self.in_flight)))
        done, self.in_flight = self.in_flight[:count], self.in_flight[count:]
        assert self.buffer.acknowledge(done[-1].sequence) == done

    @rule()
    def reconnect(self) -> None:
        self.generation = self.buffer.rewind()
        self.waiting = self.in_flight + self.waiting
        self.in_flight = []

    @invariant()
    def bounded_and_exact(self) -> None:
        held = self.in_flight + self.waiting
        assert self.buffer.nbytes == sum(m.size for m in held) <= CAPACITY
        assert self.buffer.wait_empty(0) == (not held)


TestAgainstModel: Callable[..., None] = pytest.mark.slow(AgainstModel.TestCase)


class Holds(threading.Condition):
    """Remembers how much was settled under each hold."""

    def __init__(self, settled: Callable[[], int]) -> None:
        super().__init__()
        self._settled = settled
        self._before = 0
        self.largest = 0

    def __exit__(self, *exception: object) -> None:
        self.largest = max(self.largest, self._settled() - self._before)
        self._before = self._settled()
        super().__exit__(*exception)


def test_one_answer_that_settles_thousands_does_not_keep_training_from_the_lock():
    buffer = SendBuffer(4000 * (OVERHEAD + 100))
    for step in range(3000):
        assert buffer.add(message(step))
    generation = buffer.rewind()
    last = take_all(buffer, generation, 3000)[-1]
    holds = buffer._changed = Holds(lambda: buffer._counts.acked)
    assert len(buffer.acknowledge(last.sequence)) == 3000
    assert buffer.wait_empty(0)
    assert 0 < holds.largest <= 100


def test_spooling_thousands_does_not_keep_training_from_the_lock():
    buffer = SendBuffer(4000 * (OVERHEAD + 100))
    for step in range(3000):
        assert buffer.add(message(step))
    buffer.spool_from(-1, lambda: None)
    chosen = buffer.to_spool(1 << 30)
    assert len(chosen) == 3000
    segment = Segment(path=Path("none"), seed=0, start=0, nbytes=0)
    holds = buffer._changed = Holds(lambda: segment.samples)
    buffer.spooled(segment, [(m, place) for place, m in enumerate(chosen, start=1)])
    assert segment.samples == 3000
    assert buffer.nbytes == 0
    assert 0 < holds.largest <= 100
