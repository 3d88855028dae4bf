"""Leave one run out: what is fitted is chosen on the other runs, so no number was tuned on its own run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from bench.signal.measuring import MeasuredRun
from bench.signal.outcome import Outcome
from bench.signal.scoring import RunScore, score

S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut(Generic[S]):
    """A run scored with the setting that was best on the other runs."""

    setting: S
    score: RunScore


def leave_one_run_out(
    runs: Sequence[MeasuredRun], settings: Sequence[S], rule: Callable[[MeasuredRun, S], Outcome]
) -> list[HeldOut[S]]:
    """Each run with the setting that is best on all others, the first of equals.

    Best: most groups found − 2 · false ones (onsets in groups that never generalize, overfitting text called
    generalized); of equals, the smallest mean regret at the stop. Raises ValueError for fewer than two runs.
    """
    if len(runs) < 2:
        raise ValueError("leave one run out: wanted two runs or more, there is nothing to fit on")
    scores_SR = [[score(run, rule(run, setting)) for run in runs] for setting in settings]
    tallies_SRC = np.array([[_tally(of_run) for of_run in of_setting] for of_setting in scores_SR])
    held_out = []
    for left_out in range(len(runs)):
        found_S, regret_S, groups_S = np.delete(tallies_SRC, left_out, axis=1).sum(axis=1).T
        best = int(np.lexsort((regret_S / np.maximum(groups_S, 1), -found_S))[0])
        held_out.append(HeldOut(setting=settings[best], score=scores_SR[best][left_out]))
    return held_out


def _tally(run: RunScore) -> tuple[float, float, float]:
    """What counts of a run: found − 2 · false groups, the sum of regrets, the groups it is summed over."""
    learned = [group for group in run.groups if group.learned_step is not None]
    found = sum(group.onset_step is not None for group in learned)
    false = sum(
        group.onset_said if group.accuracy else group.overfits and group.confirmed
        for group in run.groups
        if group.learned_step is None
    )
    return found - 2 * false, sum(group.at_stop.regret for group in learned), len(learned)
