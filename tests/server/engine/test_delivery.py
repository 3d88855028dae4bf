"""What `test_delivery_machine.py` found, as short stories."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
import pytest
from held_engine import TIMEOUT, HeldEngine, HeldStream
from sample_pieces import CAPACITY, EXPERTS, LAYERS, Piece, by_envelope, cut, geometry_of, message

from pathwatch.client.tensors import to_tensor
from pathwatch.server.phases.verdict import Phase
from pathwatch.v1 import run_pb2


@pytest.fixture
def play(bench: Any, make_batch: Any, eventually: Any) -> Any:
    """A lone rank goes through steps, and waits until they are judged."""

    def play(*steps: int, attempt: int = 0) -> Any:
        rank = bench.join(attempt=attempt)
        for step in steps:
            rank.observe(make_batch(step))
            rank.watermark(step)
        eventually(lambda: bench.view().run.closed_step == max(steps))
        return rank

    bench.create()
    return play


def steps(bench: Any) -> list[int]:
    return [row.step for row in bench.store.windows("run")]


def test_a_refused_message_supersedes_nothing(
    bench: Any, play: Any, make_batch: Any, eventually: Any
) -> None:
    play(10, 20)
    rank = bench.join(attempt=1)
    twice = make_batch(5, n=2)
    twice.sample_ids.CopyFrom(to_tensor(np.array([3, 3])))
    twice.fragment.token_parts = 2
    sequence = rank.observe(twice)
    eventually(lambda: rank.acked == sequence)
    assert [refusal.field for refusal in rank.rejected] == ["batch.sample_ids"]
    assert steps(bench) == [10, 20]
    assert bench.view().run.closed_step == 20


# With computing in hand: rounds that wait to be judged while other things happen.


@pytest.fixture
def held() -> Iterator[HeldEngine]:
    held = HeldEngine()
    yield held
    held.close()


def create(held: HeldEngine, *, window_steps: int = 0) -> None:
    config = run_pb2.RunConfig(
        topology=run_pb2.Topology(layers=LAYERS, experts=EXPERTS),
        mode=run_pb2.OBSERVATION_MODE_STREAM if window_steps else run_pb2.OBSERVATION_MODE_PROBE,
        window_steps=window_steps,
        capacity=CAPACITY,
    )
    held.engine.create_run("run", config, 0).result(TIMEOUT)


def pieces_of(step: int, *, layer_cut: int | None = None) -> list[Piece]:
    chance = Random(step)  # noqa: S311
    keys = [("math", step, sample) for sample in range(3)]
    return [p for key in keys for p in cut(key, chance, token_parts=1, layer_cut=layer_cut, lost=False)]


def observe(stream: HeldStream, sequence: int, step: int, pieces: list[Piece] | None = None) -> int:
    """Sends a step and that it is complete; the next sequence."""
    for together in by_envelope(pieces_of(step) if pieces is None else pieces):
        stream.send(sequence, message(together))
        sequence += 1
    stream.send(sequence, step)
    return sequence + 1


def held_steps(held: HeldEngine) -> list[tuple[int, int]]:
    return [(row.attempt, row.step) for row in held.store.windows("run")]


def test_a_closed_round_outlives_two_new_attempts_and_two_crashes(held: HeldEngine) -> None:
    create(held)
    observe(held.open(0, 1, 0, "first"), 1, 10)
    held.settle()
    for attempt in (1, 2):
        held.open(0, 1, attempt, "next")
        held.crash()
    held.compute()
    assert held_steps(held) == [(0, 10)]


def test_a_superseded_window_does_not_come_back_with_its_first_steps(
    held: HeldEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """The attempt begins in the middle of a window that had closed and was not judged."""
    create(held, window_steps=4)
    stream = held.open(0, 1, 0, "first")
    sequence = 1
    for step in (0, 1, 2, 3):
        sequence = observe(stream, sequence, step)
    held.settle()
    second = held.open(0, 1, 1, "second")
    second.send(1, message(pieces_of(2)[:1]))
    held.settle()
    held.crash()
    held.compute()
    assert held_steps(held) == []
    assert next(iter(held.store.batches("run"))).attempt == 1
    held.open(0, 1, 1, "second").send(2, 3)
    held.settle()
    held.compute()
    assert held_steps(held) == [(1, 3)]
    assert "could not be judged" not in caplog.text


def test_two_rewinds_in_a_row_are_judged_one_after_the_other(held: HeldEngine) -> None:
    create(held)
    stream, sequence = held.open(0, 1, 0, "first"), 1
    for step in (10, 20, 30):
        sequence = observe(stream, sequence, step)
    held.settle()
    held.compute()
    observe(held.open(0, 1, 1, "second"), 1, 20)  # complete, if only just, when the third attempt begins
    observe(held.open(0, 1, 2, "third"), 1, 25)  # nothing of the second was judged yet
    held.settle()
    held.compute()
    assert held_steps(held) == [(0, 10), (1, 20), (2, 25)]
    assert all(row.judged for row in held.store.windows("run"))


def test_a_round_of_which_nothing_came_whole_is_remembered(held: HeldEngine) -> None:
    create(held)
    stream = held.open(0, 1, 0, "first")
    sequence = observe(stream, 1, 10)
    half = [piece for piece in pieces_of(20, layer_cut=1) if piece.layers == (0,)]
    sequence = observe(stream, sequence, 20, half)
    held.settle()
    held.compute()
    held.crash()
    stream = held.open(0, 1, 0, "first")
    observe(stream, sequence, 30, [piece for piece in pieces_of(30, layer_cut=1) if piece.layers == (0,)])
    held.settle()
    held.compute()
    status = held.engine.views["run"].last_signal.groups[0]
    assert (status.phase, status.reason) == (Phase.UNKNOWN, "No sample came whole at step 30.")
    assert [row.metrics.get("window_samples") for row in held.store.windows("run")] == [3, 0, 0]


def test_geometry_of_a_rewound_attempt_does_not_reach_the_next(held: HeldEngine) -> None:
    """Whether it is still there would depend on how far judging had come."""
    create(held)
    stream = held.open(0, 1, 0, "first")
    stream.send(1, geometry_of(0, 5))
    observe(stream, 2, 10)
    observe(held.open(0, 1, 1, "second"), 1, 20)
    held.settle()
    held.compute()
    assert ["path_consistency" in row.metrics for row in held.store.windows("run")] == [True, False]


def test_a_closed_round_keeps_its_geometry_where_the_next_attempt_has_one_of_that_step(
    held: HeldEngine,
) -> None:
    create(held)
    stream = held.open(0, 1, 0, "first")
    stream.send(1, geometry_of(0, 10))
    observe(stream, 2, 10)
    second = held.open(0, 1, 1, "second")
    second.send(1, geometry_of(1, 10))
    observe(second, 2, 20)
    held.settle()
    held.crash()
    held.compute()
    assert held_steps(held) == [(0, 10), (1, 20)]
    assert ["path_consistency" in row.metrics for row in held.store.windows("run")] == [True, True]


def test_geometry_that_comes_late_counts_from_the_next_round_on(held: HeldEngine) -> None:
    """Rank 1 had not passed step 10 when it closed; whether it was judged in between makes no difference."""
    said = []
    for judged_before in (False, True):
        engine = held if not judged_before else HeldEngine()
        create(engine)
        ranks = [engine.open(rank, 2, 0, f"{rank}") for rank in range(2)]
        observe(ranks[0], 1, 10)
        engine.settle()
        engine.steady += 60
        engine.settle()
        if judged_before:
            engine.compute()
        ranks[1].send(1, geometry_of(0, 10))
        observe(ranks[0], 5, 20)
        observe(ranks[1], 2, 20)
        engine.settle()
        engine.compute()
        said.append([(row.step, dict(row.metrics)) for row in engine.store.windows("run")])
        if judged_before:
            engine.close()
    assert said[0] == said[1]
    assert ["path_consistency" in metrics for _, metrics in said[0]] == [False, True]
