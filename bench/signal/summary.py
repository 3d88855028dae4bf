"""The scores of a method over many runs as the few numbers it is judged by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

from bench.signal.scoring import Choice, GroupScore, RunScore
from pathwatch.server.phases.verdict import Phase

Summary: TypeAlias = dict[str, float | None]
"""By name; None = undefined, for instance a mean over nothing."""


def summarize(runs: Sequence[RunScore]) -> Summary:
    """Numbers over all runs; those of groups with validation loss begin with `text_`.

    Regret and lead are over groups that generalize. Lead is in steps, before test accuracy passes 0.5. Saved
    steps are a mean over runs, those never stopped included.
    """
    tested = [run for run in runs if run.accuracy]
    return _of_accuracy(tested) | _of_text([run for run in runs if not run.accuracy])


def _of_accuracy(runs: Sequence[RunScore]) -> Summary:
    groups = [group for run in runs for group in run.groups]
    learned = [group for group in groups if group.learned_step is not None]
    never = [group for group in groups if group.learned_step is None]
    leads = [
        float(group.learned_step - group.onset_step)
        for group in learned
        if group.learned_step is not None and group.onset_step is not None
    ]
    return {
        "groups_learned": len(learned),
        "found": len(leads),
        "confirmed": sum(group.confirmed for group in learned),
        "confirmed_early": sum(group.confirmed_early for group in learned),
        "withdrawn_of_learned": sum(group.onsets_withdrawn > 0 for group in learned),
        **_spread("lead", leads),
        "lead_min": min(leads, default=None),
        "groups_never": len(never),
        "false_onsets": sum(group.onset_said for group in never),
        "false_onsets_withdrawn": sum(group.onset_said and group.onset_step is None for group in never),
        "false_confirmed": sum(group.confirmed for group in never),
        **_spread("regret_at_stop", _regrets(group.at_stop for group in learned)),
        **_spread("regret_at_end", _regrets(group.at_end for group in learned)),
        **_spread("regret_of_told", _regrets(group.of_told for group in learned)),
        **_spread("regret_for_all", _regrets(group.for_all for group in learned)),
        "cut_off": sum(group.cut_off for group in learned),
        "runs": len(runs),
        "runs_stopped": sum(run.stop_step is not None for run in runs),
        "saved": _mean([run.saved for run in runs]),
        "saved_where_all_learn": _mean(
            [run.saved for run in runs if all(group.learned_step is not None for group in run.groups)]
        ),
    }


def _of_text(runs: Sequence[RunScore]) -> Summary:
    groups = [group for run in runs for group in run.groups]
    overfit = [group for group in groups if group.overfits]
    healthy = [group for group in groups if not group.overfits]
    improving = [run for run in runs if any(not group.overfits for group in run.groups)]
    return {
        "text_groups_overfit": len(overfit),
        **_said("text_overfit", overfit),
        **_spread("text_overfit_at_stop", _regrets(group.at_stop for group in overfit)),
        **_spread("text_overfit_at_end", _regrets(group.at_end for group in overfit)),
        "text_groups_healthy": len(healthy),
        **_said("text_healthy", healthy),
        **_spread("text_healthy_at_stop", _regrets(group.at_stop for group in healthy)),
        **_spread("text_healthy_at_end", _regrets(group.at_end for group in healthy)),
        "text_runs_healthy": len(improving),
        "text_runs_healthy_stopped": sum(run.stop_step is not None for run in improving),
    }


def _said(name: str, groups: Sequence[GroupScore]) -> Summary:
    return {
        f"{name}_said_overfitting": sum(group.said(Phase.OVERFITTING) for group in groups),
        f"{name}_called_generalizing": sum(group.onset_said for group in groups),
        f"{name}_called_generalized": sum(group.confirmed for group in groups),
    }


def _regrets(choices: Iterable[Choice | None]) -> list[float]:
    return [choice.regret for choice in choices if choice is not None]


def _spread(name: str, values: Sequence[float]) -> Summary:
    return {
        f"{name}_mean": _mean(values),
        f"{name}_median": float(np.median(values)) if values else None,
        f"{name}_max": max(values, default=None),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
