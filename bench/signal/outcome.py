"""What a method, be it a detector with its policy or a baseline, did on a run; in log points 0 … T-1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pathwatch.server.phases.verdict import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOutcome:
    """One group. A choice is the log point of a checkpoint, known at the time it is made."""

    phases: Sequence[tuple[int, Phase]]
    """Each change of phase, to the end of the run whether or not it was stopped."""
    chosen_at_stop: int
    """Of all log points to the stop, or to the end of a run not stopped."""
    chosen_at_end: int
    """Of all log points, had the run gone on."""
    chosen_of_told: int | None = None
    """Of the checkpoints of a job that saves only when told to: at CHECKPOINT, at STOP, at its end.
    None = the method does not say when to save."""
    chosen_for_all: int | None = None
    """The one chosen at the stop for all groups together; None = the method chooses for groups only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A run."""

    stop: int | None
    """Log point of the first STOP."""
    groups: Mapping[str, GroupOutcome]
