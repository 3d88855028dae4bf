"""Samples cut into the pieces that ranks send, and, in plain loops, what a window holds of them."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from pathwatch.client.tensors import to_tensor
from pathwatch.server.metrics.window import WindowArrays
from pathwatch.server.sketch.hashing import sample_hash
from pathwatch.v1 import routing_pb2

LAYERS, EXPERTS, CAPACITY = 3, 4, 5


@dataclass(frozen=True)
class Piece:
    """What one fragment holds of one sample."""

    key: tuple[str, int, int]
    """Group, step, sample."""
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

    @property
    def is_fragment(self) -> bool:
        return self.layers is not None or self.token_parts > 1


def cut(
    key: tuple[str, int, int], rng: Random, *, token_parts: int, layer_cut: int | None, lost: bool
) -> list[Piece]:
    """A sample of random content: tokens in so many parts, layers cut there, one piece perhaps lost."""
    separate_target = rng.random() < 0.3
    layer_sets = [None] if layer_cut is None else [tuple(range(layer_cut)), tuple(range(layer_cut, LAYERS))]
    target, visits = rng.choice([None, rng.randrange(5)]), rng.choice([None, rng.randrange(3)])
    fickle = rng.random() < 0.2

    def row() -> tuple[float, ...]:
        raw = [rng.random() + 0.01 for _ in range(EXPERTS)]
        return tuple(float(np.float32(value / sum(raw))) for value in raw)

    def rows(layers: Sequence[int]) -> tuple[tuple[float, ...], ...]:
        return tuple(row() for _ in layers)

    pieces = []
    for part in range(token_parts):
        least = 0 if token_parts > 1 else 1
        tokens = rng.randint(least, 9)
        if fickle:
            target = rng.choice([None, rng.randrange(5)])
        target_tokens = rng.randint(least, tokens) if separate_target else tokens
        loss = rng.choice([float(np.float32(rng.random())), float(np.float32(rng.random())), None])
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


def by_envelope(pieces: Iterable[Piece]) -> list[list[Piece]]:
    """Pieces that may travel together, in order; a fragment may not repeat a sample."""
    together: dict[tuple[object, ...], list[Piece]] = {}
    for piece in pieces:
        together.setdefault(piece.envelope, []).append(piece)
    return [list(dict.fromkeys(some)) if some[0].is_fragment else some for some in together.values()]


def column(pieces: Sequence[Piece], name: str, dtype: type) -> Any:
    """One field of pieces of one envelope as an array, [n] or [n, L', K]; None where it is absent."""
    if getattr(pieces[0], name) is None:
        return None
    values = np.array([getattr(piece, name) for piece in pieces], dtype)
    return values.reshape(len(pieces), -1 if values.size else 0, EXPERTS) if "weights" in name else values


def message(pieces: Sequence[Piece]) -> routing_pb2.ObservationBatch:
    """Pieces of one envelope as they are sent."""
    one = pieces[0]
    batch = routing_pb2.ObservationBatch(
        step=one.key[1],
        group=one.key[0],
        sample_ids=to_tensor(np.array([piece.key[2] for piece in pieces], np.int64)),
        token_counts=to_tensor(column(pieces, "tokens", np.int32)),
        target_token_counts=to_tensor(column(pieces, "target_tokens", np.int32)),
        weights=to_tensor(column(pieces, "weights", np.float32)),
    )
    for field, name, dtype in (
        (batch.losses, "loss", np.float64),
        (batch.target_weights, "target_weights", np.float32),
        (batch.targets, "target", np.int32),
        (batch.visits, "visits", np.int32),
    ):
        if (values := column(pieces, name, dtype)) is not None:
            field.CopyFrom(to_tensor(values))
    if one.is_fragment:
        batch.fragment.layers.extend(one.layers or ())
        batch.fragment.token_part, batch.fragment.token_parts = one.token_part, one.token_parts
    return batch


def geometry_of(attempt: int, step: int) -> routing_pb2.ExpertGeometry:
    """Router geometry, the same for the same attempt and step."""
    rows = np.random.default_rng([attempt, step]).normal(size=(LAYERS, EXPERTS, 6)).astype(np.float32)
    return routing_pb2.ExpertGeometry(
        step=step,
        gram_self=to_tensor(rows @ rows.swapaxes(1, 2)),
        gram_next=to_tensor(rows[:-1] @ rows[1:].swapaxes(1, 2)),
    )


# The definition.


def window(
    run: str, group: str, steps: tuple[int, int], pieces: Iterable[Piece], *, ranks_missing: bool = False
) -> tuple[WindowArrays | None, bool]:
    """What the window of a group holds of all pieces that came for it, and whether it is incomplete.

    Of each sample the newest step; of the samples those of smallest hash.
    """
    by_sample: dict[int, list[Piece]] = {}
    for piece in pieces:
        if piece.key[0] == group:
            by_sample.setdefault(piece.key[2], []).append(piece)
    order = sorted(by_sample, key=lambda i: int(sample_hash(run, group, np.array([i]))[0]))
    samples = {}
    for i in sorted(order[:CAPACITY]):
        newest = max(piece.key[1] for piece in by_sample[i])
        samples[i] = _whole([piece for piece in by_sample[i] if piece.key[1] == newest])
    incomplete = any(sample is None for sample in samples.values())
    complete = {i: sample for i, sample in samples.items() if sample}
    if not complete:
        return None, bool(samples)
    return _arrays(group, steps, complete, incomplete or ranks_missing), incomplete


def _total(values: Iterable[float]) -> float:
    """Left to right; `sum` is more exact than that from Python 3.12 on."""
    return functools.reduce(operator.add, values)


def _whole(pieces: list[Piece]) -> dict[str, Any] | None:
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
                    _total(c * row[k] for c, row in zip(counts, rows, strict=True)) / sum(counts)
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
        "loss": _total(c * loss for c, loss in counted) / sum(target_counts),
        "weights": weights,
        "target_weights": target_weights,
        "separate": any(piece.target_weights is not None for piece in pieces),
        "target": targets.pop() if len(targets) == 1 else -1,
        "visits": max(-1 if piece.visits is None else piece.visits for piece in pieces),
        "tokens": sum(cells[part, 0][0].tokens for part in parts),
    }


def _arrays(
    group: str, steps: tuple[int, int], samples: dict[int, dict[str, Any]], partial: bool
) -> WindowArrays:
    def column(name: str, dtype: type) -> Any:
        return np.array([sample[name] for sample in samples.values()], dtype)

    targets, visits = column("target", np.int32), column("visits", np.int32)
    separate = any(sample["separate"] for sample in samples.values())
    return WindowArrays(
        group=group,
        first_step=steps[0],
        step=steps[1],
        sample_ids_N=np.array(list(samples), np.int64),
        losses_N=column("loss", np.float64),
        weights_NLK=column("weights", np.float32),
        target_weights_NLK=column("target_weights", np.float32) if separate else None,
        targets_N=targets if (targets >= 0).any() else None,
        visits_N=visits if (visits >= 0).any() else None,
        tokens_N=column("tokens", np.int64),
        partial=partial,
    )
