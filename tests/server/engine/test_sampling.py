"""Holding back changes nothing: whatever is lost, repeated or answered late, every window comes to what all
observations would have made of it; and no window waits for ever."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import fields
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_pieces import CAPACITY, EXPERTS, LAYERS, Piece, by_envelope, column, cut, window

from bench.advice.rank import SimulatedRank
from pathwatch.client.hashing import sample_hash as client_hash
from pathwatch.client.observations import Observations, checked
from pathwatch.server.api.responses import response_of
from pathwatch.server.config import Limits
from pathwatch.server.engine.decode import Topology, decode_batch
from pathwatch.server.engine.refusal import RefusedError
from pathwatch.server.engine.sampling import ALL, Sampling
from pathwatch.server.engine.streams import Advice, Plan, RankStream, SampleRequest, Withheld
from pathwatch.server.engine.withheld import decode_withheld
from pathwatch.server.sketch.hashing import sample_hash
from pathwatch.server.sketch.run_sketch import Round, RunSketch, SketchSettings
from pathwatch.v1 import routing_pb2

WINDOW = 4
WINDOWS = 3
TOPOLOGY = Topology(layers=LAYERS, experts=EXPERTS, limits=Limits())


def observed(pieces: Sequence[Piece]) -> Observations:
    """Pieces of one envelope as a job gives them to its client."""
    one = pieces[0]
    return checked(
        step=one.key[1],
        group=one.key[0],
        sample_ids=np.array([piece.key[2] for piece in pieces], np.int64),
        weights=column(pieces, "weights", np.float32),
        raw=None,
        losses=column(pieces, "loss", np.float64),
        token_counts=column(pieces, "tokens", np.int32),
        target_token_counts=column(pieces, "target_tokens", np.int32),
        target_weights=column(pieces, "target_weights", np.float32),
        targets=column(pieces, "target", np.int32),
        visits=column(pieces, "visits", np.int32),
        layers=one.layers,
        token_part=one.token_part,
        token_parts=one.token_parts,
    )


class Fleet:
    """Ranks and a server between which a test carries the messages."""

    def __init__(self, ranks: int) -> None:
        settings_ = SketchSettings(
            run="run",
            layers=LAYERS,
            experts=EXPERTS,
            mode="stream",
            window_steps=WINDOW,
            capacity=CAPACITY,
        )
        self.sketch = RunSketch(settings_)
        self.sampling = Sampling(Plan(window_steps=WINDOW, capacity=CAPACITY), grace_seconds=60)
        self.rounds: list[Round] = []
        self.ranks = [SimulatedRank("run", rank) for rank in range(ranks)]
        self.streams: list[RankStream] = []
        self.answers: list[list[routing_pb2.StreamRoutingResponse]] = [[] for _ in range(ranks)]
        self._applied = [0] * ranks
        self.observations = 0
        """That the server was sent, repeated ones included."""
        for rank in range(ranks):
            self.streams.append(self._joined(rank))

    def _joined(self, rank: int) -> RankStream:
        stream = RankStream(
            run="run",
            attempt=0,
            rank=rank,
            world_size=len(self.ranks),
            session="life",
            deliver=lambda _: None,
            acked=self._applied[rank],
        )
        self.sketch.join(rank, len(self.ranks))
        self.sampling.greet(stream)
        self._answer(stream)
        return stream

    def carry(self, rank: int, most: int | None = None) -> bool:
        """Messages of a rank reach the server, and their effects are answered; whether there were any."""
        came = False
        for request in self.ranks[rank].messages(most):
            came = True
            self._take(self.streams[rank], request)
        if came:
            self.flush(0.0, self.streams[rank])
        return came

    def hear(self, rank: int, most: int | None = None) -> bool:
        """Answers reach a rank; whether there were any."""
        came = self.answers[rank][:most]
        del self.answers[rank][:most]
        for response in came:
            self.ranks[rank].hear(response)
        return bool(came)

    def reconnect(self, rank: int, *, well: bool) -> None:
        """The connection of a rank ends; where not `well`, with what was under way on it."""
        if well:
            self.hear(rank)
        self.answers[rank].clear()
        self.streams[rank].ended = True
        self.ranks[rank].disconnect(well=well)
        self.streams[rank] = self._joined(rank)

    def settle(self) -> None:
        """Carry everything, until there is nothing left to say."""
        quiet = False
        while not quiet:
            quiet = True
            for rank in range(len(self.ranks)):
                came = self.carry(rank), self.hear(rank)
                quiet &= not any(came)

    def _take(self, stream: RankStream, request: routing_pb2.StreamRoutingRequest) -> None:
        rank = stream.rank
        if request.WhichOneof("payload") == "withheld":
            assert request.sequence == 0
            self.sampling.report(stream, decode_withheld(request.withheld, Limits()), 0.0)
            return
        if request.sequence > self._applied[rank]:
            assert request.sequence == self._applied[rank] + 1
            self._applied[rank] = request.sequence
            if request.WhichOneof("payload") == "watermark":
                self.sketch.watermark(rank, request.watermark.step, 0.0)
                self.sampling.passed(rank, request.watermark.step)
            else:
                block = decode_batch(request.batch, 0, TOPOLOGY)
                assert self.sketch.add(block, 0.0).late == 0
                self.observations += len(block.sample_ids_N)
                if advice := self.sketch.advice(block.group):
                    stream.advise(Advice(group=block.group, until_step=advice[0], threshold=advice[1]))
        stream.acked = max(stream.acked, request.sequence)

    def flush(self, now: float, *senders: RankStream) -> None:
        """What the writer does after a batch of commands."""
        self.rounds += self.sketch.close_ready(0.0)
        self.sampling.closed(self.sketch.take_closed_limits())
        owed = {id(stream): stream for stream in (*senders, *self.sampling.answer(self.sketch, now))}
        for stream in owed.values():
            self.sampling.tell(stream)
            self._answer(stream)

    def _answer(self, stream: RankStream) -> None:
        if not stream.ended:
            self.answers[stream.rank].append(response_of(stream.take_ack()))


def bits(rounds: Sequence[Round]) -> list[Any]:
    def plain(value: Any) -> Any:
        return (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value

    return [
        (
            one.step,
            one.partial,
            one.missing_ranks,
            [[plain(getattr(item, f.name)) for f in fields(item)] for item in one.windows.values()],
        )
        for one in rounds
    ]


def expected(pieces: Sequence[Piece]) -> list[Round]:
    rounds = []
    for first in range(0, WINDOWS * WINDOW, WINDOW):
        steps = first, first + WINDOW - 1
        mine = [piece for piece in pieces if steps[0] <= piece.key[1] <= steps[1]]
        windows, partial = {}, False
        for group in "ab":
            arrays, incomplete = window("run", group, steps, mine)
            partial |= incomplete
            if arrays is not None:
                windows[group] = arrays
        if mine:
            rounds.append(Round(0, *steps, windows, partial, ()))
    return rounds


@st.composite
def jobs(draw: st.DrawFn) -> list[Piece]:
    """Pieces of what a job observes: of all samples a window keeps few, and some come again and again."""
    keys = draw(
        st.lists(
            st.tuples(
                st.sampled_from("ab"),
                st.integers(0, WINDOWS * WINDOW - 1),
                st.integers(0, draw(st.sampled_from([6, 40]))),
            ),
            min_size=1,
            max_size=60,
            unique=True,
        )
    )
    parts = draw(st.sampled_from([1, 1, 2]))
    layer_cut = draw(st.sampled_from([None, None, 1]))
    seed = draw(st.integers(0, 99))
    return [
        piece
        for key in keys
        for piece in cut(
            key,
            Random(repr((seed, key))),  # noqa: S311
            token_parts=parts,
            layer_cut=layer_cut,
            lost=draw(st.sampled_from([False] * 9 + [True])),
        )
    ]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(pieces=jobs(), ranks=st.integers(1, 4), rng=st.randoms(use_true_random=False))
def test_windows_come_to_what_all_observations_make_of_them(
    pieces: list[Piece], ranks: int, rng: Random
) -> None:
    fleet = Fleet(ranks)
    todo: list[list[Any]] = [[] for _ in range(ranks)]
    at = {piece: rng.randrange(ranks) for piece in pieces}
    for step, rank in itertools.product(range(WINDOWS * WINDOW), range(ranks)):
        of_step = [piece for piece in pieces if piece.key[1] == step and at[piece] == rank]
        todo[rank] += [observed(together) for together in by_envelope(of_step)]
        todo[rank] += [step] * (rng.random() < 0.7 or step == WINDOWS * WINDOW - 1)
    while any(todo):
        rank = rng.randrange(ranks)
        match rng.choice(["train", "train", "train", "carry", "carry", "hear", "hear", "cut", "end"]):
            case "train" if todo[rank]:
                item = todo[rank].pop(0)
                (fleet.ranks[rank].watermark if isinstance(item, int) else fleet.ranks[rank].observe)(item)
            case "carry":
                fleet.carry(rank, rng.randint(1, 5))
            case "hear":
                fleet.hear(rank, rng.randint(1, 3))
            case "cut" if rng.random() < 0.2:
                fleet.reconnect(rank, well=False)
            case "end" if rng.random() < 0.2:
                fleet.reconnect(rank, well=True)
    fleet.settle()
    assert bits(fleet.rounds) == bits(expected(pieces))


def plain(ids: Sequence[int], step: int, group: str = "a") -> list[Piece]:
    return [
        piece
        for i in ids
        for piece in cut((group, step, i), Random(i), token_parts=1, layer_cut=None, lost=False)  # noqa: S311
    ]


def trained(fleet: Fleet, windows: int, per_step: int) -> tuple[list[Piece], list[int]]:
    """A fleet that trains in step, each sample new; all pieces, and what was sent in each window."""
    pieces, sent = [], []
    fleet.settle()
    for step in range(windows * WINDOW):
        for rank, one in enumerate(fleet.ranks):
            first = (step * len(fleet.ranks) + rank) * per_step
            some = plain(range(first, first + per_step), step)
            pieces += some
            for together in by_envelope(some):
                one.observe(observed(together))
            one.watermark(step)
        fleet.settle()
        if step % WINDOW == WINDOW - 1:
            sent.append(fleet.observations)
    return pieces, list(np.diff(sent, prepend=0))


@pytest.mark.slow
def test_what_is_sent_does_not_grow_with_what_is_observed() -> None:
    few, many = Fleet(4), Fleet(4)
    _, sent_of_few = trained(few, 6, per_step=10)
    pieces, sent_of_many = trained(many, 6, per_step=100)
    assert bits(many.rounds) == bits(expected(pieces) + many.rounds[WINDOWS:])
    # Capacity 5: the margin of two standard deviations doubles it, and rank 0 sends its first sample.
    assert np.mean(sent_of_many) <= 4 * CAPACITY
    assert np.mean(sent_of_many) <= 1.5 * np.mean(sent_of_few)


@pytest.mark.slow
def test_the_first_window_costs_no_more_than_later_ones() -> None:
    """Nothing is expected yet, and there are more ranks than samples wanted."""
    fleet = Fleet(4 * CAPACITY)
    pieces, sent = trained(fleet, WINDOWS, per_step=10)
    assert bits(fleet.rounds) == bits(expected(pieces))
    assert sent[0] <= 4 * CAPACITY


def test_samples_that_nobody_asked_for_do_not_make_ranks_send_more() -> None:
    """Sent before ranks heard that they may hold back: enough for a limit, one that is far too high."""
    fleet = Fleet(4)
    pieces = []

    def train(step: int, samples: int) -> None:
        for rank, one in enumerate(fleet.ranks):
            first = (step * len(fleet.ranks) + rank) * 1000
            for together in by_envelope(some := plain(range(first, first + samples), step)):
                one.observe(observed(together))
            pieces.extend(some)
            one.watermark(step)

    train(0, 2)
    fleet.settle()
    early = fleet.observations
    assert early == 4 * 2 > CAPACITY
    for step in range(1, WINDOW):
        train(step, 200)
        fleet.settle()
    assert bits(fleet.rounds) == bits(expected(pieces))
    assert fleet.observations - early <= 3 * CAPACITY


@pytest.mark.parametrize("attempt", [0, 1])
def test_a_later_attempt_is_told_of_its_first_step_by_every_rank(attempt: int) -> None:
    """It goes over what earlier attempts did from there on; the first attempt goes over nothing."""
    sent = []
    for rank in range(3):
        one = SimulatedRank("run", rank, attempt=attempt)
        plan = routing_pb2.SamplingPlan(window_steps=WINDOW, capacity=CAPACITY)
        one.hear(routing_pb2.StreamRoutingResponse(plan=plan))
        for step in (5, 6):
            for together in by_envelope(plain(range(20), step)):
                one.observe(observed(together))
        sent.append([(m.batch.step, len(m.batch.sample_ids.data) // 8) for m in one.messages()])
    assert sent == [[(5, 1)], [(5, 1)] if attempt else [], [(5, 1)] if attempt else []]


def test_a_rank_alone_holds_no_more_than_it_needs() -> None:
    fleet = Fleet(1)
    pieces, sent = trained(fleet, WINDOWS, per_step=100)
    assert bits(fleet.rounds) == bits(expected(pieces))
    assert np.mean(sent) <= 4 * CAPACITY


def test_a_sample_that_comes_again_is_sent_once_a_window() -> None:
    fleet = Fleet(1)
    fleet.settle()
    sent = []
    for step in range(WINDOWS * WINDOW):
        for together in by_envelope(plain(range(CAPACITY), step)):
            fleet.ranks[0].observe(observed(together))
        fleet.ranks[0].watermark(step)
        fleet.settle()
        sent.append(fleet.observations)
    # The attempt's first step is told by one sample.
    assert sent[WINDOW - 1] == CAPACITY + 1
    assert sent[-1] == WINDOWS * CAPACITY + 1


def test_a_rank_that_is_not_heard_of_holds_up_nobody_for_long() -> None:
    fleet = Fleet(2)
    fleet.settle()
    some = plain(range(50), 0)
    for together in by_envelope(some):
        fleet.ranks[0].observe(observed(together))
    fleet.ranks[0].watermark(WINDOW - 1)
    fleet.settle()
    assert fleet.sketch.ranks_behind(WINDOW - 1) == (0, 1)
    deadline = fleet.sampling.next_deadline()
    assert deadline == 30.0
    fleet.flush(deadline)
    fleet.settle()
    assert fleet.sketch.ranks_behind(WINDOW - 1) == (1,)
    assert fleet.sampling.next_deadline() is None


def test_a_window_that_has_closed_is_waited_for_by_nobody() -> None:
    fleet = Fleet(1)
    fleet.sketch.closed_step = WINDOW - 1
    stream = fleet.streams[0]
    fleet.sampling.report(stream, Withheld(step=WINDOW - 1, until_step=WINDOW - 1, groups={"a": 9}), 0.0)
    assert list(fleet.sampling.answer(fleet.sketch, 0.0)) == [stream]
    assert stream.requests == [SampleRequest(group="", until_step=WINDOW - 1, through=ALL)]


def test_ranks_that_wait_when_the_grace_time_ends_are_asked_for_everything_once() -> None:
    """Rank 2 is silent; rank 1 had reported before the window was closed without them."""
    fleet, end = Fleet(3), WINDOW - 1
    (together,) = by_envelope(plain([0], 0))
    fleet.ranks[0].observe(observed(together))  # it was not told to hold back yet
    fleet.ranks[0].watermark(end)
    fleet.settle()
    stream = fleet.streams[1]
    fleet.sampling.report(stream, Withheld(step=end, until_step=end, groups={"a": 100}), 40.0)
    list(fleet.sampling.answer(fleet.sketch, 40.0))
    assert not stream.requests

    assert [round_.missing_ranks for round_ in fleet.sketch.close_ready(100.0)] == [(1, 2)]

    everything = SampleRequest(group="", until_step=end, through=ALL)
    assert list(fleet.sampling.answer(fleet.sketch, 100.0)) == [stream]
    assert stream.requests == [everything]
    assert not list(fleet.sampling.answer(fleet.sketch, 101.0))
    late = fleet.streams[2]
    fleet.sampling.report(late, Withheld(step=end, until_step=end, groups={"a": 100}), 102.0)
    assert list(fleet.sampling.answer(fleet.sketch, 102.0)) == [late]
    assert (stream.requests, late.requests) == ([everything], [everything])


@given(st.text(max_size=9), st.text(max_size=9), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=9))
def test_clients_compute_the_servers_hash(run: str, group: str, ids: list[int]) -> None:
    ids_N = np.array(ids, np.int64)
    assert (client_hash(run, group, ids_N) == sample_hash(run, group, ids_N)).all()


@pytest.mark.parametrize("field", ["step", "until_step"])
def test_impossible_steps_are_refused(field: str) -> None:
    with pytest.raises(RefusedError, match=r"count from 0"):
        decode_withheld(routing_pb2.Withheld(**{field: -1}), Limits())


def test_a_rank_that_has_not_heard_that_all_are_wanted_is_asked() -> None:
    """It heard a limit for windows to come, and began the next before it was told that few were too few."""
    fleet = Fleet(1)
    rank, pieces = fleet.ranks[0], []
    fleet.settle()

    def train(step: int, ids: Sequence[int]) -> None:
        pieces.extend(some := plain(ids, step))
        for together in by_envelope(some):
            rank.observe(observed(together))
        rank.watermark(step)

    for step in range(WINDOW):
        train(step, range(100 * step, 100 * step + 10))
    fleet.settle()
    for step in range(WINDOW, 2 * WINDOW):  # fewer than are kept
        train(step, [1000 + step] if step == WINDOW else [])
    while fleet.carry(0) and len(fleet.rounds) < 2:
        fleet.hear(0)
    for step in range(2 * WINDOW, 3 * WINDOW):  # over before the rank hears that all are wanted
        train(step, [2000 + step])
    fleet.settle()
    assert bits(fleet.rounds) == bits(expected(pieces))
