"""Whether what a run's verdicts rest on can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RESULTS = ("accepted", "late", "beyond", "duplicate", "rejected", "dropped")
"""What becomes of an observation; `dropped` = it never came, as its sender tells (docs/operations.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHealth:
    """At one moment. Counts begin with the server's life."""

    observations: Mapping[str, int]
    """Observations by result (RESULTS)."""
    connected_ranks: int
    """Ranks whose streams are open."""
    missing_ranks: tuple[int, ...]
    """Ranks without whom the newest round was closed; empty = none."""
    partial_rounds: int
    """Rounds judged without some ranks."""
    unjudged_rounds: int
    """Rounds that are closed and wait for their verdict."""
