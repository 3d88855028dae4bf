"""The promise of the sketch: any order, repetition, packing or splitting of the same observations gives the
same rounds to the bit, and they are those of a few plain loops over the definition."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathwatch.server.metrics.window import WindowArrays
from pathwatch.server.sketch.hashing import sample_hash
from pathwatch.server.sketch.observations import ObservationBlock
from pathwatch.server.sketch.run_sketch import Round, RunSketch, SketchSettings

LAYERS, EXPERTS, WINDOW, CAPACITY = 3, 4, 4, 5
Make = Callable[..., Any]


@dataclass(frozen=True)
class Piece:
    """What one fragment holds of one sample."""

    key: tuple[str, int, int]  # group, step, sample
    layers: tuple[int, ...] | None
    token_part: int
    token_parts: int
    tokens: int
    target_tokens: int
    weights: tuple[tuple[float, ...], ...]
    target_weights: tuple[tuple[float, ...], ...] | None
    loss: float | None
    target: int | None
    visits: int | None

    @property
    def envelope(self) -> tuple[object, ...]:
        """Pieces that may travel in one block have this in common."""
        absent = (self.target_weights is None, self.loss is None, self.target is None, self.visits is None)
        return (*self.key[:2], self.layers, self.token_part, self.token_parts, absent)


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


def cut(
    key: tuple[str, int, int], rng: Random, *, token_parts: int, layer_cut: int | None, lost: bool
) -> list[Piece]:
    separate_target = rng.random() < 0.3
    layer_sets = [None] if layer_cut is None else [tuple(range(layer_cut)), tuple(range(layer_cut, LAYERS))]
    target, visits = rng.choice([None, rng.randrange(5)]), rng.choice([None, rng.randrange(3)])
    fickle = rng.random() < 0.2

    def rows(layers: Sequence[int]) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(float(np.float32(rng.random())) for _ in range(EXPERTS)) for _ in layers)

    pieces = []
    for part in range(token_parts):
        tokens = rng.randint(0 if token_parts > 1 else 1, 9)
        if fickle:
            target = rng.choice([None, rng.randrange(5)])
        target_tokens = rng.randint(0, tokens) if separate_target else tokens
        loss = rng.choice([rng.random(), rng.random(), None])
        for layers in layer_sets:
            held = range(LAYERS) if layers is None else layers
            last = layers in (None, layer_sets[-1])  # pipeline parallel: the last stage sees loss and labels
            pieces.append(
                Piece(
                    key,
                    layers,
                    part,
                    token_parts,
                    tokens,
                    target_tokens,
                    rows(held),
                    rows(held) if separate_target else None,
                    (0.5 if loss is None and not held else loss) if last else None,
                    target if last else None,
                    visits if last else None,
                )
            )
    if lost:
        pieces.pop(rng.randrange(len(pieces)))
    return pieces


def packed(pieces: Iterable[Piece], rng: Random) -> list[ObservationBlock]:
    """Blocks that hold these pieces, cut and packed at random, in about the given order."""
    pieces, blocks = list(pieces), []
    while pieces:
        size = rng.randint(1, 12)
        chunk, pieces = pieces[:size], pieces[size:]
        for envelope in {piece.envelope: None for piece in chunk}:
            together = [piece for piece in chunk if piece.envelope == envelope]
            if together[0].layers is not None or together[0].token_parts > 1:
                together = list(dict.fromkeys(together))  # a fragment may not repeat a sample
            blocks.append(block_of(together))
    return blocks


def block_of(pieces: list[Piece]) -> ObservationBlock:
    one = pieces[0]

    def column(name: str, dtype: type) -> Any:
        if getattr(one, name) is None:
            return None
        values = np.array([getattr(piece, name) for piece in pieces], dtype)
        return (
            values
            if "weights" not in name
            else values.reshape(len(pieces), -1 if values.size else 0, EXPERTS)
        )

    return ObservationBlock(
        attempt=0,
        step=one.key[1],
        group=one.key[0],
        sample_ids_N=np.array([piece.key[2] for piece in pieces], np.int64),
        losses_N=column("loss", np.float64),
        tokens_N=column("tokens", np.int64),
        target_tokens_N=column("target_tokens", np.int64),
        weights_NLK=column("weights", np.float32),
        target_weights_NLK=column("target_weights", np.float32),
        targets_N=column("target", np.int32),
        visits_N=column("visits", np.int32),
        layers=one.layers,
        token_part=one.token_part,
        token_parts=one.token_parts,
    )


def shuffled(pieces: Sequence[Piece], rng: Random) -> list[Piece]:
    """The same pieces in another order, about a third of them twice."""
    result = [*pieces, *(piece for piece in pieces if rng.random() < 0.3)]
    rng.shuffle(result)
    return result


# The definition, in plain loops.


def expected_rounds(observed: list[list[Piece]], run: str) -> list[Round]:
    rounds = []
    for first in range(0, 3 * WINDOW, WINDOW):
        windows, partial, seen = {}, False, False
        for group in "ab":
            newest: dict[int, list[Piece]] = {}
            for pieces in observed:
                if pieces and pieces[0].key[0] == group and first <= pieces[0].key[1] < first + WINDOW:
                    held = newest.setdefault(pieces[0].key[2], pieces)
                    if pieces[0].key[1] > held[0].key[1]:
                        newest[pieces[0].key[2]] = pieces
            order = sorted(newest, key=lambda i: int(sample_hash(run, group, np.array([i]))[0]))
            kept = {i: whole(newest[i]) for i in sorted(order[:CAPACITY])}
            seen |= bool(kept)
            incomplete = any(sample is None for sample in kept.values())
            complete = {i: sample for i, sample in kept.items() if sample}
            partial |= incomplete or (bool(kept) and not complete)
            if complete:
                windows[group] = window_of(group, first, complete, incomplete)
        if seen:
            rounds.append(Round(0, first, first + WINDOW - 1, windows, partial, ()))
    return rounds


def total(values: Iterable[float]) -> float:
    """Left to right; `sum` is more exact than that from Python 3.12 on."""
    return functools.reduce(operator.add, values)


def whole(pieces: list[Piece]) -> dict[str, Any] | None:
    """The merged sample; None if something of it is missing, empty if no part has a target token."""
    cells = {
        (piece.token_part, layer): (piece, position)
        for piece in pieces
        for position, layer in enumerate(range(LAYERS) if piece.layers is None else piece.layers)
    }
    parts = range(pieces[0].token_parts)
    if set(cells) != set(itertools.product(parts, range(LAYERS))):
        return None
    one_part = len(parts) == 1
    counts = [1 if one_part else cells[part, 0][0].tokens for part in parts]
    target_counts = [1 if one_part else cells[part, 0][0].target_tokens for part in parts]
    if sum(target_counts) == 0:
        return {}

    def mean(counts: list[int], of: Callable[[Piece], Any]) -> list[list[float]]:
        result = []
        for layer in range(LAYERS):
            rows = [of(cells[part, layer][0])[cells[part, layer][1]] for part in parts]
            result.append(
                [
                    total(c * row[k] for c, row in zip(counts, rows, strict=True)) / sum(counts)
                    for k in range(EXPERTS)
                ]
            )
        return result

    losses = [
        next((piece.loss for piece in pieces if piece.token_part == part and piece.loss is not None), np.nan)
        for part in parts
    ]
    targets = {
        max([-1, *(p.target for p in pieces if p.token_part == part and p.target is not None)])
        for part, count in zip(parts, target_counts, strict=True)
        if count > 0
    }
    weights = mean(counts, lambda piece: piece.weights)
    target_weights = mean(target_counts, lambda piece: piece.target_weights or piece.weights)
    counted = [(c, loss) for c, loss in zip(target_counts, losses, strict=True) if c > 0]
    return {
        "loss": total(c * loss for c, loss in counted) / sum(target_counts),
        "weights": weights,
        "target_weights": target_weights,
        "separate": any(piece.target_weights is not None for piece in pieces),
        "target": targets.pop() if len(targets) == 1 else -1,
        "visits": max(-1 if piece.visits is None else piece.visits for piece in pieces),
        "tokens": sum(cells[part, 0][0].tokens for part in parts),
    }


def window_of(group: str, first: int, samples: dict[int, dict[str, Any]], partial: bool) -> WindowArrays:
    def column(name: str, dtype: type) -> Any:
        return np.array([sample[name] for sample in samples.values()], dtype)

    targets, visits = column("target", np.int32), column("visits", np.int32)
    separate = any(sample["separate"] for sample in samples.values())
    return WindowArrays(
        group=group,
        first_step=first,
        step=first + WINDOW - 1,
        sample_ids_N=np.array(list(samples), np.int64),
        losses_N=column("loss", np.float64),
        weights_NLK=column("weights", np.float32),
        target_weights_NLK=column("target_weights", np.float32) if separate else None,
        targets_N=targets if (targets >= 0).any() else None,
        visits_N=visits if (visits >= 0).any() else None,
        tokens_N=column("tokens", np.int64),
        partial=partial,
    )


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
