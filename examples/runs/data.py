"""Modular arithmetic with more operations than the demo's."""

from __future__ import annotations

import numpy as np
import torch
from arithmetic.data import Group

COMMUTATIVE = {"add", "mul", "sq", "max"}


def make_group(item: str, index: int, p: int, rng: np.random.Generator) -> Group:
    """A group from `operation:train fraction`, e.g. `lin:0.65`; `rnd:0.2` and `rnd1:0.2` are two groups.

    Operations: add, sub, mul, div, sq (a² + b²), cub (a³ + ab), lin (2a + 3b), all modulo p; max; rnd (random
    answers). Pairs (a, b) and (b, a) of a commutative operation stay on one side of the split.
    """
    name, _, fraction = item.partition(":")
    operation = name.rstrip("0123456789")
    a_N, b_N = (grid.ravel() for grid in np.meshgrid(np.arange(p), np.arange(p), indexing="ij"))
    match operation:
        case "add":
            answers_N = (a_N + b_N) % p
        case "sub":
            answers_N = (a_N - b_N) % p
        case "mul":
            answers_N = (a_N * b_N) % p
        case "div":
            answers_N = (a_N * np.array([pow(int(b), -1, p) if b else 0 for b in b_N])) % p
        case "sq":
            answers_N = (a_N**2 + b_N**2) % p
        case "cub":
            answers_N = (a_N**3 + a_N * b_N) % p
        case "lin":
            answers_N = (2 * a_N + 3 * b_N) % p
        case "max":
            answers_N = np.maximum(a_N, b_N)
        case "rnd":
            answers_N = rng.integers(0, p, p * p)
        case _:
            raise ValueError(f"group {item!r}: unknown operation {operation!r}")
    ids_N = np.flatnonzero(b_N > 0) if operation == "div" else np.arange(p * p)
    keys_N = np.minimum(a_N, b_N) * p + np.maximum(a_N, b_N) if operation in COMMUTATIVE else np.arange(p * p)
    keys = np.unique(keys_N[ids_N])
    is_train_N = np.isin(keys_N[ids_N], rng.permutation(keys)[: int(len(keys) * float(fraction))])
    return Group(
        name=item,
        tokens_N3=torch.from_numpy(np.stack([a_N, b_N, np.full(p * p, p + index)], axis=1)),
        answers_N=torch.from_numpy(answers_N),
        train_ids=torch.from_numpy(ids_N[is_train_N]),
        test_ids=torch.from_numpy(ids_N[~is_train_N]),
    )
