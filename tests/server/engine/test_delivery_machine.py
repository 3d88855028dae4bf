"""Messages lost, repeated, reordered across ranks; crashes at any commit, full disks, new attempts: whatever
the order, a run comes to what the definitions make of what was delivered, bit for bit."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from delivery_oracle import Oracle, judgement_said, said, signal_said
from held_engine import TIMEOUT, TOPOLOGY, HeldEngine, HeldStream, Sent
from histories import drawn
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from sample_pieces import CAPACITY, EXPERTS, LAYERS, Piece, by_envelope, cut, geometry_of, message

from pathwatch.server import plugins
from pathwatch.server.config import Limits
from pathwatch.server.engine.decode import decode_geometry
from pathwatch.server.engine.refusal import Code, RefusedError
from pathwatch.server.engine.run_config import with_defaults
from pathwatch.server.phases.verdict import Checkpoint
from pathwatch.v1 import routing_pb2, run_pb2

WINDOW = 4
GRACE = 60.0
SAMPLES = st.tuples(
    st.sampled_from(["code", "math"]),
    st.integers(-2, 6),  # sample
    st.sampled_from([1, 1, 2]),  # token parts
    st.sampled_from([None, None, 1, LAYERS]),  # where layers are cut
    st.sampled_from([False, False, False, True]),  # whether a piece is never sent
)


STEPS = st.tuples(
    st.integers(1, WINDOW),  # after the one before
    st.lists(SAMPLES, max_size=6, unique_by=lambda sample: sample[:2]),
    st.booleans(),  # whether router geometry is sent
    st.sampled_from([-1, -1, 0, 1, 2]),  # rank that says nothing of its completeness
)


@dataclass(frozen=True)
class Planned:
    """A message of a rank, the same whenever it is sent."""

    step: int
    sent: Sent
    pieces: tuple[Piece, ...] = ()


@dataclass
class Rank:
    """A rank as its client knows it: what it has to send, what it has sent in this session."""

    number: int
    plan: list[Planned] = field(default_factory=list)
    life: int = 0
    next: int = 0
    """Index into the plan; sequences are indices + 1."""
    applied: int = 0
    """Messages of this session that the server holds for good."""
    stream: HeldStream | None = None

    @property
    def watermark(self) -> int:
        """The last one planned."""
        return max((planned.step for planned in self.plan if isinstance(planned.sent, int)), default=-1)


@dataclass
class Attempt:
    number: int
    ranks: list[Rank]
    step: int
    """The last one planned."""

    def rank(self, chance: int) -> Rank:
        return self.ranks[chance % len(self.ranks)]


class Delivery(RuleBasedStateMachine):
    """Plans, of what ranks send, come about in order; what becomes of them on the way, in any."""

    @initialize(stream=st.booleans(), world_size=st.integers(1, 3))
    def begin(self, stream: bool, world_size: int) -> None:
        config = run_pb2.RunConfig(
            topology=run_pb2.Topology(layers=LAYERS, experts=EXPERTS),
            mode=run_pb2.OBSERVATION_MODE_STREAM if stream else run_pb2.OBSERVATION_MODE_PROBE,
            window_steps=WINDOW if stream else 0,
            capacity=CAPACITY,
            grace_seconds=GRACE,
        )
        self.held = HeldEngine()
        self.held.engine.create_run("run", config, 0).result(TIMEOUT)
        self.oracle = Oracle("run", with_defaults(config))
        self.attempt = Attempt(0, [Rank(number) for number in range(world_size)], -1)
        self.stale: list[tuple[int, int, Rank]] = []
        self.newest_step = -1

    # What the job does.

    @rule(steps=st.lists(STEPS, min_size=1, max_size=4))
    def train(self, steps: list[Any]) -> None:
        """Every rank reads its share of some steps; one perhaps forgets to say that a step is complete."""
        attempt = self.attempt
        for gap, samples, geometry, silent in steps:
            step = attempt.step = attempt.step + gap
            shares: list[list[Piece]] = [[] for _ in attempt.ranks]
            for group, sample, token_parts, layer_cut, lost in samples:
                key = group, step, sample
                chance = Random(repr((attempt.number, key)))  # noqa: S311
                pieces = cut(key, chance, token_parts=token_parts, layer_cut=layer_cut, lost=lost)
                for i, piece in enumerate(pieces):
                    shares[(i + sample) % len(shares)].append(piece)
            for rank, share in zip(attempt.ranks, shares, strict=True):
                for together in by_envelope(share):
                    rank.plan.append(Planned(step, message(together), tuple(together)))
                if geometry and share:
                    rank.plan.append(Planned(step, geometry_of(attempt.number, step)))
                    geometry = False
                if rank.number != silent or len(attempt.ranks) == 1:
                    rank.plan.append(Planned(step, step))

    @rule(rank=st.integers(0, 2), other=st.integers(0, 2), which=st.integers(0, 50))
    def read_twice(self, rank: int, other: int, which: int) -> None:
        """A rank sends what another one sends, too."""
        one = self.attempt.rank(rank)
        if may := [
            planned
            for planned in self.attempt.rank(other).plan
            if planned.pieces and planned.step > one.watermark
        ]:
            one.plan.append(may[which % len(may)])

    @rule(back=st.integers(0, 12), world_size=st.integers(1, 3), first=st.integers(0, 2))
    def restart_job(self, back: int, world_size: int, first: int) -> None:
        """The job goes back some steps, or none; the old ranks do not know yet."""
        old = self.attempt
        self.newest_step = max(self.newest_step, old.step)
        self.stale += [(old.number, len(old.ranks), rank) for rank in old.ranks]
        self.attempt = Attempt(
            old.number + 1, [Rank(number) for number in range(world_size)], max(-1, old.step - back)
        )
        self.connect(self.attempt.rank(first))

    @rule(rank=st.integers(0, 2), first=st.integers(0, 50))
    def restart_rank(self, rank: int, first: int) -> None:
        """A process dies and another does its work again, from the start or from some message on."""
        one = self.attempt.rank(rank)
        one.plan = one.plan[first % (len(one.plan) + 1) :] if first % 2 else one.plan
        one.life, one.next, one.applied, one.stream = one.life + 1, 0, 0, None

    @rule(back=st.integers(0, 8), older=st.booleans())
    def save_checkpoint(self, back: int, older: bool) -> None:
        number = max(0, self.oracle.attempt - older)
        checkpoint = Checkpoint(step=max(0, self.attempt.step - back), tag="", attempt=number)
        fate = self.oracle.checkpoint(checkpoint)
        error = self.held.engine.register_checkpoint("run", checkpoint).exception(TIMEOUT)
        assert isinstance(error, RefusedError) == (fate == "refused")

    # What happens on the way.

    @rule(ranks=st.lists(st.integers(0, 2), min_size=1, max_size=24))
    def deliver(self, ranks: list[int]) -> None:
        """The next message of each of these ranks arrives."""
        for rank in ranks:
            one = self.attempt.rank(rank)
            self.connect(one)
            if one.next < len(one.plan):
                self.send(one, one.next)
                one.next += 1

    @rule(rank=st.integers(0, 2), which=st.integers(0, 50))
    def deliver_again(self, rank: int, which: int) -> None:
        """A message arrives a second time, on the same stream."""
        one = self.attempt.rank(rank)
        self.connect(one)
        if one.next:
            self.send(one, which % one.next)

    @rule(rank=st.integers(0, 2), unheard=st.integers(0, 6), noticed=st.booleans())
    def cut(self, rank: int, unheard: int, noticed: bool) -> None:
        """A connection breaks, the server perhaps hears nothing of it, and the last acks are lost."""
        one = self.attempt.rank(rank)
        if one.stream is not None:
            if noticed:
                self.held.engine.leave(one.stream.stream)
            one.stream = None
            one.next = max(0, one.next - unheard)

    @rule(which=st.integers(0, 10))
    @precondition(lambda self: self.stale)
    def stale_rank(self, which: int) -> None:
        """A rank of an older attempt goes on sending, and is told that it is over."""
        number, world_size, rank = self.stale[which % len(self.stale)]
        if rank.stream is not None and rank.next < len(rank.plan):
            rank.stream.send(rank.next + 1, rank.plan[rank.next].sent)
            self.held.settle()
            assert rank.stream.ended is not None
            assert rank.stream.ended.code is Code.FAILED_PRECONDITION
        with pytest.raises(RefusedError) as refused:
            self.held.open(rank.number, world_size, number, f"{rank.number}.{rank.life}")
        assert refused.value.code is Code.FAILED_PRECONDITION

    @rule(rank=st.integers(0, 2))
    def repeat_a_sample(self, rank: int) -> None:
        """A message that must be refused, from before everything else, changes nothing."""
        one = self.attempt.rank(rank)
        self.connect(one)
        piece = cut(("math", 0, 1), Random(1), token_parts=2, layer_cut=None, lost=False)[0]  # noqa: S311
        assert one.stream is not None
        # A session of its own, so that no sequence of the plan is used up.
        odd = self.held.open(one.number, len(self.attempt.ranks), self.attempt.number, "odd")
        one.stream = None
        odd.send(one.life + 1_000_000 + len(one.plan), message([piece, piece]))
        self.held.settle()
        assert odd.acked >= 1_000_000

    # What happens to the server.

    @rule(pieces=st.integers(1, 4))
    def compute(self, pieces: int) -> None:
        self.held.compute(pieces)

    @rule(
        seconds=st.sampled_from([1.0, GRACE / 2, GRACE]),
        jump=st.sampled_from([0.0, -1e8, -3600.0, 3600.0, 1e8]),
    )
    def pass_time(self, seconds: float, jump: float) -> None:
        """The wall clock may be set, forwards or backwards."""
        self.held.steady += seconds
        self.held.wall += seconds + jump
        self.oracle.pass_time(seconds)
        self.held.settle()

    @rule(rank=st.integers(0, 2), uncommitted=st.integers(0, 4), computed=st.integers(0, 2))
    def crash(self, rank: int, uncommitted: int, computed: int) -> None:
        """Nothing more gets to the disk; some messages and results still come; then it is over."""
        one = self.attempt.rank(rank)
        if uncommitted or computed:
            self.connect(one)
            assert one.stream is not None
            self.held.store.full = True
            acked = one.stream.acked
            for index in range(one.next, min(one.next + uncommitted, len(one.plan))):
                one.stream.send(index + 1, one.plan[index].sent)
                self.held.settle()
            self.held.compute(computed)
            assert one.stream.acked == acked, "acked, and not on disk"
        self.held.crash()
        self.oracle.crash()
        for each in self.attempt.ranks:
            each.stream = None
            each.next = min(each.next, each.applied)

    @rule(rank=st.integers(0, 2), count=st.integers(1, 6))
    def full_disk(self, rank: int, count: int) -> None:
        """For some messages the disk is full; nothing of that is acknowledged before it can be written."""
        one = self.attempt.rank(rank)
        self.connect(one)
        assert one.stream is not None
        self.held.store.full = True
        acked = one.stream.acked
        fates = []
        for _ in range(min(count, len(one.plan) - one.next)):
            one.stream.send(one.next + 1, one.plan[one.next].sent)
            self.held.settle()
            fates.append(self.take(one, one.next))
            one.next += 1
        assert one.stream.acked == acked, "acked, and not on disk"
        self.held.store.full = False
        self.held.settle()
        self.check_acks(one)

    # The end.

    def teardown(self) -> None:
        if not hasattr(self, "held"):
            return
        try:
            self.finish()
        finally:
            self.held.close()

    def finish(self) -> None:
        """All that is left arrives, everything is judged: what is said is what the oracle says."""
        for rank in self.attempt.ranks:
            self.deliver([rank.number] * (len(rank.plan) - rank.next))
        self.held.compute()
        finished = self.held.engine.finish_run("run")
        self.held.settle()
        self.oracle.finish()
        self.held.compute()
        self.held.settle()
        assert finished.result(TIMEOUT).state == run_pb2.RUN_STATE_FINISHED
        windows, judgements, judge = self.oracle.judged()
        found = said(self.held.store.windows("run"))
        assert [window[:-1] for window in found] == [window[:-1] for window in windows]
        assert found == windows
        if judgements and judgements[-1].verdicts:
            assert signal_said(self.held.engine.views["run"].last_signal) == judgement_said(judgements[-1])
        for group in (None, "code", "math"):
            ranking = self.held.engine.rank_checkpoints("run", group, 0)
            self.held.settle()
            self.held.compute()
            assert ranking.result(TIMEOUT) == judge.rank(self.oracle.checkpoints, group)

    # How it is done.

    def connect(self, rank: Rank) -> None:
        if rank.stream is None or rank.stream.ended is not None:
            session = f"{self.attempt.number}.{rank.number}.{rank.life}"
            rank.stream = self.held.open(rank.number, len(self.attempt.ranks), self.attempt.number, session)
            self.oracle.hello(rank.number, len(self.attempt.ranks), self.attempt.number)
            assert rank.stream.acked == rank.applied

    def send(self, rank: Rank, index: int) -> None:
        assert rank.stream is not None
        rank.stream.send(index + 1, rank.plan[index].sent)
        self.held.settle()
        self.take(rank, index)
        self.check_acks(rank)

    def take(self, rank: Rank, index: int) -> None:
        """The oracle hears of what the server has taken for the first time."""
        if index < rank.applied:
            return
        rank.applied = index + 1
        planned = rank.plan[index]
        if planned.pieces:
            self.oracle.observe(rank.number, planned.pieces)
        elif isinstance(planned.sent, int):
            self.oracle.watermark(rank.number, planned.sent)
        elif isinstance(planned.sent, routing_pb2.ExpertGeometry):
            geometry = decode_geometry(planned.sent, TOPOLOGY)
            self.oracle.geometry(rank.number, geometry, planned.sent.SerializeToString())

    def check_acks(self, rank: Rank) -> None:
        assert rank.stream is not None
        if rank.stream.acked < rank.applied and len(self.oracle.rounds) > Limits().unjudged_rounds:
            self.held.compute()  # acks are held back until more is judged
        assert rank.stream.acked == rank.applied


@pytest.fixture(autouse=True, scope="module")
def installed_packages_are_read_once() -> Iterator[None]:
    """Listing them takes most of the time of a short run, and they do not change here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "entry_points", functools.cache(plugins.entry_points))
        yield


class DeliveryAtLength(Delivery):
    pass


TestDelivery = pytest.mark.slow(Delivery.TestCase)
TestDelivery.settings = drawn(25, rules=40)
TestDeliveryAtLength = pytest.mark.robustness(pytest.mark.timeout(900)(DeliveryAtLength.TestCase))
TestDeliveryAtLength.settings = drawn(500, rules=40)


def test_a_round_overtaken_while_it_is_judged_is_said_by_no_later_attempt() -> None:
    """One attempt goes over its step again, the next begins before the verdict is there."""
    held = HeldEngine()
    try:
        config = run_pb2.RunConfig(
            topology=run_pb2.Topology(layers=LAYERS, experts=EXPERTS), grace_seconds=GRACE
        )
        held.engine.create_run("run", config, 0).result(TIMEOUT)

        def observe(attempt: int, step: int) -> None:
            rank = held.open(0, 1, attempt, str(attempt))
            (piece,) = cut(("math", step, 1), Random(0), token_parts=1, layer_cut=None, lost=False)  # noqa: S311
            rank.send(1, message([piece]))
            rank.send(2, step)
            held.settle()

        observe(0, 6)
        held.compute(1)  # the judge is made; the round is handed out next
        observe(1, 1)
        held.open(0, 1, 2, "2")
        held.compute()
        assert [(window.attempt, window.step) for window in held.store.windows("run")] == [(1, 1)]
    finally:
        held.close()
