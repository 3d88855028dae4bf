"""The promise of the sketch: any order, repetition, packing or splitting of the same observations gives the
same rounds to the bit, and they are those of a few plain loops over the definition."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_pieces import CAPACITY, Piece, by_envelope, column, cut, window

from pathwatch.server.sketch.hashing import sample_hash
from pathwatch.server.sketch.observations import ObservationBlock
from pathwatch.server.sketch.run_sketch import Round, RunSketch, SketchSettings

WINDOW = 4
Make = Callable[..., Any]


@st.composite
def observations(draw: st.DrawFn) -> list[list[Piece]]:
    """Observations, each as the pieces it was cut into; some pieces lost."""
    keys = draw(
        st.lists(
            st.tuples(st.sampled_from("ab"), st.integers(0, 3 * WINDOW - 1), st.integers(-3, 9)),
            min_size=1,
            max_size=30,
            unique=True,
        )
    )
    return [
        cut(
            key,
            Random(repr((draw(st.integers(0, 9)), key))),  # noqa: S311
            token_parts=draw(st.sampled_from([1, 1, 2, 3])),
            # 3: all layers in one stage, and losses alone from the last.
            layer_cut=draw(st.sampled_from([None, None, 1, 2, 3])),
            lost=draw(st.sampled_from([False, False, False, True])),
        )
        for key in keys
    ]


def packed(pieces: Iterable[Piece], rng: Random) -> list[ObservationBlock]:
    """Blocks that hold these pieces, cut and packed at random, in about the given order."""
    pieces, blocks = list(pieces), []
    while pieces:
        size = rng.randint(1, 12)
        chunk, pieces = pieces[:size], pieces[size:]
        blocks += [block_of(together) for together in by_envelope(chunk)]
    return blocks


def block_of(pieces: list[Piece]) -> ObservationBlock:
    one = pieces[0]
    return ObservationBlock(
        attempt=0,
        step=one.key[1],
        group=one.key[0],
        sample_ids_N=np.array([piece.key[2] for piece in pieces], np.int64),
        losses_N=column(pieces, "loss", np.float64),
        tokens_N=column(pieces, "tokens", np.int64),
        target_tokens_N=column(pieces, "target_tokens", np.int64),
        weights_NLK=column(pieces, "weights", np.float32),
        target_weights_NLK=column(pieces, "target_weights", np.float32),
        targets_N=column(pieces, "target", np.int32),
        visits_N=column(pieces, "visits", np.int32),
        layers=one.layers,
        token_part=one.token_part,
        token_parts=one.token_parts,
    )


def shuffled(pieces: Sequence[Piece], rng: Random) -> list[Piece]:
    """The same pieces in another order, about a third of them twice."""
    result = [*pieces, *(piece for piece in pieces if rng.random() < 0.3)]
    rng.shuffle(result)
    return result


def expected_rounds(observed: list[list[Piece]], run: str) -> list[Round]:
    rounds = []
    for first in range(0, 3 * WINDOW, WINDOW):
        steps = first, first + WINDOW - 1
        pieces = [piece for piece in itertools.chain(*observed) if steps[0] <= piece.key[1] <= steps[1]]
        windows, partial = {}, False
        for group in "ab":
            arrays, incomplete = window(run, group, steps, pieces)
            partial |= incomplete
            if arrays is not None:
                windows[group] = arrays
        if pieces:
            rounds.append(Round(0, *steps, windows, partial, ()))
    return rounds


# The promises.


def stream_settings(make_settings: Make) -> SketchSettings:
    result: SketchSettings = make_settings(mode="stream", window_steps=WINDOW, capacity=CAPACITY)
    return result


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(observed=observations(), rng=st.randoms(use_true_random=False))
def test_any_arrangement_gives_the_definition(
    make_settings: Make, bits: Make, observed: list[list[Piece]], rng: Random
) -> None:
    sketch = RunSketch(stream_settings(make_settings))
    sketch.join(0, 1)
    for block in packed(shuffled(list(itertools.chain(*observed)), rng), rng):
        sketch.add(block, now=0.0)
    sketch.watermark(0, 3 * WINDOW, now=0.0)
    assert bits(sketch.close_ready(now=0.0)) == bits(expected_rounds(observed, "run"))


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(observed=observations(), rng=st.randoms(use_true_random=False), world_size=st.integers(1, 3))
def test_ranks_may_run_apart(
    make_settings: Make, bits: Make, observed: list[list[Piece]], rng: Random, world_size: int
) -> None:
    """Each rank sends its share window by window, then a watermark; how the ranks interleave is chance."""
    share: list[list[Piece]] = [[] for _ in range(world_size)]
    for piece in itertools.chain(*observed):
        share[rng.randrange(world_size)].append(piece)
    queues: list[list[ObservationBlock | int]] = []
    for pieces in share:
        queue: list[ObservationBlock | int] = []
        for first in range(0, 3 * WINDOW, WINDOW):
            mine = [piece for piece in pieces if first <= piece.key[1] < first + WINDOW]
            queue += [*packed(shuffled(mine, rng), rng), first + WINDOW - 1]
        queues.append(queue)
    sketch = RunSketch(stream_settings(make_settings))
    for rank in range(world_size):
        sketch.join(rank, world_size)
    rounds, now = [], 0.0
    while any(queues):
        rank = rng.choice([rank for rank, queue in enumerate(queues) if queue])
        item, now = queues[rank].pop(0), now + 1e-3
        if isinstance(item, int):
            sketch.watermark(rank, item, now)
        else:
            assert sketch.add(item, now).late == 0
        rounds += sketch.close_ready(now)
    assert bits(rounds) == bits(expected_rounds(observed, "run"))
    assert sketch.close_all(now) == []


@settings(max_examples=50, deadline=None)
@given(seeds=st.lists(st.integers(0, 50), min_size=1, max_size=6), rng=st.randoms(use_true_random=False))
def test_conflicting_reports_are_settled_whatever_the_order(
    make_settings: Make, bits: Make, seeds: list[int], rng: Random
) -> None:
    """A step that was replayed without a new attempt, with other numbers."""
    keys = [("a", 1, sample_id) for sample_id in range(3)]
    pieces = [
        piece
        for key in keys
        for seed in seeds
        for piece in cut(key, Random(seed), token_parts=1, layer_cut=None, lost=False)  # noqa: S311
    ]

    def rounds(order: list[Piece]) -> list[Round]:
        sketch = RunSketch(stream_settings(make_settings))
        sketch.join(0, 1)
        for block in packed(order, rng):
            sketch.add(block, now=0.0)
        return sketch.close_all(now=0.0)

    assert bits(rounds(pieces)) == bits(rounds(shuffled(pieces, rng)))


@given(
    observed=st.lists(
        st.tuples(st.integers(0, 3), st.integers(-9, 30)), min_size=1, max_size=80
    ),  # (step, sample)
    capacity=st.sampled_from([1, 3, 8, 100]),
    with_target=st.booleans(),
    fragment_at=st.none() | st.integers(0, 79),
)
def test_messages_of_one_observation_end_as_the_definition_says(
    make_settings: Make,
    make_block: Make,
    observed: list[tuple[int, int]],
    capacity: int,
    with_target: bool,
    fragment_at: int | None,
) -> None:
    def columns(sample_id: int) -> dict[str, Any]:
        targets = np.array([sample_id % 5], np.int32) if with_target else None
        return {"targets_N": targets, "visits_N": None if targets is None else targets + 1}

    sketch = RunSketch(make_settings(mode="stream", window_steps=WINDOW, capacity=capacity))
    sketch.join(0, 1)
    for number, (step, sample_id) in enumerate(observed):
        sketch.add(make_block(step, [sample_id], **columns(sample_id)), 0.0)
        if number == fragment_at:  # of a sample of its own, which another part of never comes
            sketch.add(make_block(0, [1000], token_part=1, token_parts=2), 0.0)
    window = sketch.close_all(0.0)[0].windows.get("math")

    newest: dict[int, int] = {}
    for step, sample_id in observed:
        newest[sample_id] = max(step, newest.get(sample_id, 0))
    candidates = [*newest, *([1000] if fragment_at is not None and fragment_at < len(observed) else [])]
    hashes = dict(zip(candidates, sample_hash("run", "math", np.array(candidates)).tolist(), strict=True))
    kept = sorted(set(sorted(candidates, key=lambda sample_id: hashes[sample_id])[:capacity]) - {1000})
    assert ([] if window is None else window.sample_ids_N.tolist()) == kept
    for row, sample_id in enumerate(kept):
        expected = make_block(newest[sample_id], [sample_id])
        assert window is not None
        assert window.weights_NLK[row].tobytes() == expected.weights_NLK[0].tobytes()
        assert window.losses_N[row] == expected.losses_N[0]
        assert window.tokens_N[row] == 7
        if with_target:
            assert window.targets_N is not None
            assert window.targets_N[row] == sample_id % 5
            assert window.visits_N is not None
            assert window.visits_N[row] == sample_id % 5 + 1


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(observed=observations(), rng=st.randoms(use_true_random=False))
def test_following_the_advice_changes_nothing(
    make_settings: Make, bits: Make, observed: list[list[Piece]], rng: Random
) -> None:
    sketch = RunSketch(stream_settings(make_settings))
    sketch.join(0, 1)
    by_step = sorted(itertools.chain(*observed), key=lambda piece: piece.key[1])
    for piece in by_step:
        block = block_of([piece])
        until_step, limit = sketch.advice(block.group) or (-1, 0)
        if piece.key[1] > until_step or int(sample_hash("run", block.group, block.sample_ids_N)[0]) < limit:
            sketch.add(block, now=0.0)
    sketch.watermark(0, 3 * WINDOW, now=0.0)
    assert bits(sketch.close_ready(now=0.0)) == bits(expected_rounds(observed, "run"))
