"""The words that detectors and policies speak, and what a plug-in of either kind implements."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.metrics.window import WindowArrays

Evidence: TypeAlias = Mapping[str, NDArray[np.generic]]
"""Small named arrays (scalars are 0-d), all a detector remembers of a window; stored durably."""


class Phase(enum.IntEnum):
    """Where a group stands; values equal pathwatch.v1.Phase."""

    UNKNOWN = 1
    LEARNING = 2
    MEMORIZED = 3
    GENERALIZING = 4
    GENERALIZED = 5
    OVERFITTING = 6
    REGRESSING = 7


class Action(enum.IntEnum):
    """What a run should do; values equal pathwatch.v1.Action."""

    CONTINUE = 1
    CHECKPOINT = 2
    STOP = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupVerdict:
    """Where one group stands, since when, and why."""

    phase: Phase
    since_step: int
    reason: str
    """One or two sentences a person understands without having read the paper."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """The numbers behind the reason: name → value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A saved state of the model, as the job registered it."""

    step: int
    tag: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedCheckpoint:
    """A checkpoint with its score (lower = better) and the reason for its place."""

    checkpoint: Checkpoint
    score: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a policy wants."""

    action: Action
    reason: str


class Detector(Protocol):
    """Turns the windows of one run into phases.

    A `pathwatch.detectors` plug-in: a class, called without arguments.

    An instance lives as long as an attempt: after a restart or a rewind a fresh one is fed the
    stored evidence of all earlier rounds again, in order, and must come to the same verdicts.
    """

    def measure(self, window: WindowArrays) -> Evidence:
        """What to remember of a window. Pure, without memory; runs outside the event loop."""
        ...

    def update(self, step: int, round_: Mapping[str, Evidence]) -> Mapping[str, GroupVerdict]:
        """Take in all groups' windows that end at `step`; returns a verdict for every group ever seen.

        A group without data in this round is missing from `round_`.
        Steps rise strictly. Only what was given before may be used.
        """
        ...

    def rank(self, checkpoints: Sequence[Checkpoint], group: str | None) -> Sequence[RankedCheckpoint]:
        """Checkpoints best first for a group (None = overall), from the rounds taken in so far."""
        ...


class Policy(Protocol):
    """Turns verdicts into an action.

    A `pathwatch.policies` plug-in: a class, called with its options as strings.
    """

    def decide(self, step: int, verdicts: Mapping[str, GroupVerdict]) -> Decision:
        """Called once per round, in order, with all groups' verdicts; rebuilt like a detector."""
        ...
