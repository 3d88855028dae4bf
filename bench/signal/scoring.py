"""How a method did on a run, by labels that no method sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.signal.measuring import MeasuredRun
from bench.signal.outcome import GroupOutcome, Outcome
from pathwatch.server.phases.verdict import Phase

LEARNED = 0.5
"""Smoothed test accuracy from which a group counts as generalized."""
OVERFIT = 1.02
"""Last validation loss over its minimum from which a group counts as overfitting."""
ENDS_ONSET = (Phase.LEARNING, Phase.MEMORIZED, Phase.OVERFITTING)
"""Phases that take back what GENERALIZING said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A checkpoint."""

    step: int
    score: float
    """Smoothed test accuracy or validation loss."""
    regret: float
    """How far that is from the best of the whole run: accuracy below it, or loss above it relative to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupScore:
    """One group of one run."""

    group: str
    accuracy: bool
    learned_step: int | None
    """First step at `LEARNED`; None = never, or a group without test accuracy."""
    overfits: bool
    """Whether its validation loss has risen by the end; False for a group with test accuracy."""
    phases: Sequence[tuple[int, str]]
    """Step and name of each change."""
    onset_step: int | None
    """Of the GENERALIZING that still stands at the end."""
    onsets_withdrawn: int
    confirmed: bool
    """Whether GENERALIZED was ever said."""
    confirmed_early: bool
    """Whether it was said before `learned_step`."""
    cut_off: bool
    """Whether the run was stopped before `learned_step`."""
    best: Choice
    last: Choice
    at_stop: Choice
    """What a job that obeys STOP is left with: chosen then, of the log points to then."""
    at_end: Choice
    of_told: Choice | None
    """The same as `at_stop` for a job that saves only when told to; None = the method does not say when."""
    for_all: Choice | None
    """The one checkpoint chosen at the stop for all groups; None = the method chooses none."""

    @property
    def onset_said(self) -> bool:
        """Whether GENERALIZING was ever said."""
        return self.onset_step is not None or self.onsets_withdrawn > 0

    def said(self, phase: Phase) -> bool:
        return any(name == phase.name for _, name in self.phases)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunScore:
    """One run."""

    run: str
    accuracy: bool
    stop_step: int | None
    saved: float
    """Share of the steps after STOP; 0 for a run not stopped."""
    groups: Sequence[GroupScore]


def score(run: MeasuredRun, outcome: Outcome) -> RunScore:
    """Judge what a method did."""
    stop_step = None if outcome.stop is None else int(run.steps_T[outcome.stop])
    return RunScore(
        run=run.name,
        accuracy=run.accuracy,
        stop_step=stop_step,
        saved=0.0 if stop_step is None else 1 - stop_step / max(int(run.steps_T[-1]), 1),
        groups=[_group_score(run, g, outcome.groups[group], stop_step) for g, group in enumerate(run.groups)],
    )


def _group_score(run: MeasuredRun, g: int, outcome: GroupOutcome, stop_step: int | None) -> GroupScore:
    scores_T = run.scores_TG[:, g]
    best = int(scores_T.argmax() if run.accuracy else scores_T.argmin())

    def choice(point: int) -> Choice:
        value, top = float(scores_T[point]), float(scores_T[best])
        return Choice(
            step=int(run.steps_T[point]),
            score=value,
            regret=top - value if run.accuracy else value / top - 1,
        )

    learned_T = scores_T >= LEARNED
    learned_step = int(run.steps_T[learned_T.argmax()]) if run.accuracy and learned_T.any() else None
    confirmed_steps = [
        int(run.steps_T[point]) for point, phase in outcome.phases if phase is Phase.GENERALIZED
    ]
    onset, withdrawn = _onset(outcome.phases)
    return GroupScore(
        group=run.groups[g],
        accuracy=run.accuracy,
        learned_step=learned_step,
        overfits=not run.accuracy and bool(scores_T[-1] > OVERFIT * scores_T[best]),
        phases=[(int(run.steps_T[point]), phase.name) for point, phase in outcome.phases],
        onset_step=None if onset is None else int(run.steps_T[onset]),
        onsets_withdrawn=withdrawn,
        confirmed=bool(confirmed_steps),
        confirmed_early=learned_step is not None and any(step < learned_step for step in confirmed_steps),
        cut_off=learned_step is not None and stop_step is not None and stop_step < learned_step,
        best=choice(best),
        last=choice(len(scores_T) - 1),
        at_stop=choice(outcome.chosen_at_stop),
        at_end=choice(outcome.chosen_at_end),
        of_told=None if outcome.chosen_of_told is None else choice(outcome.chosen_of_told),
        for_all=None if outcome.chosen_for_all is None else choice(outcome.chosen_for_all),
    )


def _onset(phases: Sequence[tuple[int, Phase]]) -> tuple[int | None, int]:
    """Log point of the onset that stands at the end, and how many were withdrawn before it."""
    onset, withdrawn = None, 0
    for point, phase in phases:
        if onset is None and phase in (Phase.GENERALIZING, Phase.GENERALIZED):
            onset = point
        elif onset is not None and phase in ENDS_ONSET:
            onset, withdrawn = None, withdrawn + 1
    return onset, withdrawn
