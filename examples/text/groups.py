"""The scenarios: which groups see fresh text all the time, and which a small set over and over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from text.corpus import KINDS, Kind, Text, read

STEPS = 480
HELD_OUT = 48
"""Sequences of a group never trained on: the validation loss."""
DEFERRED = 32
"""Samples of a group kept back until late in the run."""
FRESH_PER_STEP, REPEATED_PER_STEP = 4, 10
"""Sequences in a batch of a group that sees fresh text, and of one that repeats a small set."""
SMALLEST_SET, LARGEST_SET = 128, 160
"""A small set's sequences: 30 to 50 passes in a run, past the validation minimum."""

SCENARIOS = {
    "healthy": (True, True, True, True),
    "overfit": (False, False, False, False),
    "mixed": (True, True, False, False),
}
"""Per group whether it is a single pass over fresh text; else it repeats a small set."""


@dataclass(frozen=True, slots=True)
class Group:
    """A data group: sequences of one kind of text."""

    name: str
    text: Text
    per_step: int
    """Sequences in a batch."""


def make_groups(scenario: str, seed: int) -> list[Group]:
    """The groups of a scenario; the seed chooses kinds, files and sizes of sets.

    Raises ValueError if this machine has too little text.
    """
    rng = np.random.default_rng(seed)
    kinds: list[Kind] = [KINDS[index] for index in rng.permutation(len(KINDS))]
    groups = []
    for fresh in SCENARIOS[scenario]:
        size = STEPS * FRESH_PER_STEP if fresh else int(rng.integers(SMALLEST_SET, LARGEST_SET + 1))
        found = None
        while kinds and found is None:
            kind = kinds.pop(0)
            found = read(kind, size, HELD_OUT, rng)
        if found is None:
            wanted = len(SCENARIOS[scenario])
            raise ValueError(f"scenario {scenario!r}: not enough text on this machine for {wanted} groups")
        groups.append(Group(kind.name, found, FRESH_PER_STEP if fresh else REPEATED_PER_STEP))
    return groups
