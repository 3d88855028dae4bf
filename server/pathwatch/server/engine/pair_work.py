"""The distance between the pathways of two groups of a round, computed once."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TypeAlias

from pathwatch.server.engine.group_work import GroupWork
from pathwatch.server.engine.once import Once
from pathwatch.server.engine.run_config import metric_settings
from pathwatch.v1 import run_pb2

Pair: TypeAlias = tuple[str, str]
"""Two groups, by name."""


class PairWork(Once[float]):
    """Both groups' work must have been begun before this is done."""

    def __init__(self, config: run_pb2.RunConfig, first: GroupWork, other: GroupWork, groups: int) -> None:
        """Of a round of so many groups: the more there are, the fewer samples of each pair are compared."""
        super().__init__()
        self._config = config
        self._first = first
        self._other = other
        self._groups = groups

    def is_of(self, first: GroupWork, other: GroupWork, groups: int) -> bool:
        """Whether it is of these, and has not failed."""
        same = self._first is first and self._other is other and self._groups == groups
        return same and not self.failed

    def _compute(self) -> float:
        from pathwatch.server.metrics.summary import cross_distance

        first, other = self._first.result().part, self._other.result().part
        return cross_distance(first, other, self._groups, metric_settings(self._config))


def pair_works(
    config: run_pb2.RunConfig, work: Mapping[str, GroupWork], groups: int, known: Mapping[Pair, PairWork]
) -> dict[Pair, PairWork]:
    """That of each two of these groups, of a round of `groups`; what is `known` of the same work is kept."""
    pairs = {}
    for pair in combinations(sorted(work), 2):
        first, other = work[pair[0]], work[pair[1]]
        before = known.get(pair)
        is_same = before is not None and before.is_of(first, other, groups)
        pairs[pair] = before if before and is_same else PairWork(config, first, other, groups)
    return pairs
