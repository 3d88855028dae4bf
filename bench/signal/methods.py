"""The rows of the summary: the detector with its policy, and the baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.signal import baselines
from bench.signal.fitting import leave_one_run_out
from bench.signal.measuring import MeasuredRun
from bench.signal.outcome import Outcome
from bench.signal.playing import play
from bench.signal.scoring import RunScore, score
from pathwatch.server.phases.verdict import Detector, Policy

S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodScore:
    """A method on all runs."""

    method: str
    runs: Sequence[RunScore]
    fitted: Sequence[str | None]
    """What was fitted for each run, on the others; None = nothing."""


def score_detector(
    runs: Sequence[MeasuredRun], detector: Callable[[], Detector], policy: Callable[[], Policy], name: str
) -> MethodScore:
    """Score a detector and a policy, fresh for each run, on runs measured before.

    For tuning: measure once (`measuring.measure_file`), then score each candidate; `summary.summarize` makes
    numbers of `.runs`. The evidence must be what the candidate's own `measure` would give.
    """
    return _unfitted(name, runs, lambda run: play(run, detector(), policy()))


def score_baselines(runs: Sequence[MeasuredRun]) -> list[MethodScore]:
    """All baselines; those with a threshold only where there are two runs or more to fit it on."""
    scored = [
        _unfitted("loss patience", runs, baselines.loss_patience),
        _unfitted("smallest loss", runs, baselines.smallest_loss),
        _unfitted("last checkpoint", runs, baselines.last_checkpoint),
    ]
    if len(runs) < 2:
        return scored
    distance = baselines.falling("path_distance", relative=True)
    normalized = baselines.falling("path_distance_normalized", relative=True)
    consistency = baselines.falling("path_consistency", relative=False)
    return [
        *scored,
        _fitted("D_path alone", runs, baselines.DISTANCE_SETTINGS, distance),
        _fitted("D_path / length alone", runs, baselines.DISTANCE_SETTINGS, normalized),
        _fitted("C_i alone", runs, baselines.CONSISTENCY_SETTINGS, consistency),
        _fitted("step number", runs, baselines.STEP_SETTINGS, baselines.step_number),
    ]


def _unfitted(name: str, runs: Sequence[MeasuredRun], rule: Callable[[MeasuredRun], Outcome]) -> MethodScore:
    return MethodScore(method=name, runs=[score(run, rule(run)) for run in runs], fitted=[None] * len(runs))


def _fitted(
    name: str,
    runs: Sequence[MeasuredRun],
    settings: Sequence[S],
    rule: Callable[[MeasuredRun, S], Outcome],
) -> MethodScore:
    held_out = leave_one_run_out(runs, settings, rule)
    return MethodScore(
        method=name,
        runs=[run.score for run in held_out],
        fitted=[str(run.setting) for run in held_out],
    )
