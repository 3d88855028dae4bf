"""Modular arithmetic as data groups: which pairs are trained on, which are held back for judging."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

COMMUTATIVE = {"add", "mul"}
IGNORED = -100
"""Label of a token that has nothing to predict."""


@dataclass(frozen=True, slots=True)
class Group:
    """One operation. Sample id = a · p + b; every tensor is indexed by it or by position in a split."""

    name: str
    tokens_N3: Tensor
    """[p², 3] int64: a, b, operation token."""
    answers_N: Tensor
    """[p²] int64: the class to predict after the operation token."""
    train_ids: Tensor
    """Sample ids trained on, ascending."""
    test_ids: Tensor
    """Sample ids never trained on, ascending; only for judging."""

    @property
    def labels_N3(self) -> Tensor:
        """[p², 3]: the answer stands at the operation token, where it is predicted; nothing before."""
        labels_N3 = torch.full_like(self.tokens_N3, IGNORED)
        labels_N3[:, -1] = self.answers_N
        return labels_N3


@dataclass(frozen=True, slots=True)
class Batch:
    """A rank's share of a training batch."""

    tokens_B3: Tensor
    labels_B3: Tensor
    sample_ids: dict[str, Tensor]
    """Group → ids of its samples in the batch."""


def batches(groups: list[Group], size: int, rank: int, world_size: int, seed: int) -> Iterator[Batch]:
    """Endless batches of all training pairs together, the same on every rank; each takes its share."""
    generator = torch.Generator().manual_seed(seed)
    tokens_N3 = torch.cat([g.tokens_N3[g.train_ids] for g in groups])
    labels_N3 = torch.cat([g.labels_N3[g.train_ids] for g in groups])
    ids_N = torch.cat([g.train_ids for g in groups])
    group_N = torch.cat([torch.full_like(g.train_ids, index) for index, g in enumerate(groups)])
    while True:
        drawn = torch.randint(len(ids_N), (size,), generator=generator)[rank::world_size]
        yield Batch(
            tokens_B3=tokens_N3[drawn],
            labels_B3=labels_N3[drawn],
            sample_ids={g.name: ids_N[drawn][group_N[drawn] == index] for index, g in enumerate(groups)},
        )


def make_groups(spec: Sequence[str], p: int, seed: int) -> list[Group]:
    """Groups from `operation:train fraction`, e.g. `add:0.7`; operations add, sub, mul, rnd (random answers).

    Pairs (a, b) and (b, a) of a commutative operation stay on one side of the split: otherwise the test
    set would leak into training.
    """
    return [_make_group(item, index, p, seed) for index, item in enumerate(spec)]


def _make_group(item: str, index: int, p: int, seed: int) -> Group:
    operation, _, fraction = item.partition(":")
    generator = torch.Generator().manual_seed(seed * 1_000_003 + zlib.crc32(operation.encode()))
    a, b = (x.reshape(-1) for x in torch.meshgrid(torch.arange(p), torch.arange(p), indexing="ij"))
    match operation:
        case "add":
            answers = (a + b) % p
        case "sub":
            answers = (a - b) % p
        case "mul":
            answers = (a * b) % p
        case "rnd":
            answers = torch.randint(p, (p * p,), generator=generator)
        case _:
            raise ValueError(f"group {item!r}: unknown operation {operation!r}; use add, sub, mul or rnd")
    order = torch.rand(p, p, generator=generator)
    if operation in COMMUTATIVE:
        order = torch.minimum(order, order.T)
    ranking = order.reshape(-1).argsort(stable=True)
    n_train = round(float(fraction) * p * p)
    if (
        operation in COMMUTATIVE
        and order.reshape(-1)[ranking[n_train - 1]] == order.reshape(-1)[ranking[n_train]]
    ):
        n_train += 1
    return Group(
        name=item,
        tokens_N3=torch.stack([a, b, torch.full_like(a, p + index)], dim=1),
        answers_N=answers,
        train_ids=ranking[:n_train].sort().values,
        test_ids=ranking[n_train:].sort().values,
    )
