"""A detector and a policy on a measured run, step by step as the live service would have played it."""

from __future__ import annotations

from collections.abc import Sequence

from bench.signal.measuring import MeasuredRun
from bench.signal.outcome import GroupOutcome, Outcome
from pathwatch.server.phases.verdict import Action, Checkpoint, Detector, Phase, Policy


def play(run: MeasuredRun, detector: Detector, policy: Policy) -> Outcome:
    """Feed all rounds in order to a fresh detector and a fresh policy.

    Every log point counts as a registered checkpoint. The decision to stop counts where it is made; a live
    job stops a little later, at `stop_at_step`, and could save there too.
    """
    checkpoints = [Checkpoint(step=step, tag=str(step), attempt=0) for step in run.steps_T.tolist()]
    phases: dict[str, list[tuple[int, Phase]]] = {group: [] for group in run.groups}
    told: list[int] = []
    stop: int | None = None
    at_stop: dict[str | None, int] = {}
    of_told: dict[str | None, int] = {}
    for point, (checkpoint, round_) in enumerate(zip(checkpoints, run.rounds, strict=True)):
        verdicts = detector.update(checkpoint.step, round_)
        for group, verdict in verdicts.items():
            if not phases[group] or phases[group][-1][1] is not verdict.phase:
                phases[group].append((point, verdict.phase))
        action = policy.decide(checkpoint.step, verdicts).action
        if stop is None and action is not Action.CONTINUE:
            told.append(point)
        if stop is None and action is Action.STOP:
            stop = point
            at_stop = _choices(run, detector, checkpoints, range(point + 1))
            of_told = _choices(run, detector, checkpoints, told)
    last = len(checkpoints) - 1
    at_end = _choices(run, detector, checkpoints, range(last + 1))
    if stop is None:
        at_stop = at_end
        of_told = _choices(run, detector, checkpoints, sorted({*told, last}))
    return Outcome(
        stop=stop,
        groups={
            group: GroupOutcome(
                phases=phases[group],
                chosen_at_stop=at_stop[group],
                chosen_at_end=at_end[group],
                chosen_of_told=of_told[group],
                chosen_for_all=at_stop[None],
            )
            for group in run.groups
        },
    )


def _choices(
    run: MeasuredRun, detector: Detector, checkpoints: Sequence[Checkpoint], saved: Sequence[int]
) -> dict[str | None, int]:
    """The best of the saved log points by group, None = overall; the newest where the detector ranks none."""
    point_of = {checkpoints[point].step: point for point in saved}
    known = [checkpoints[point] for point in saved]
    ranked = {group: detector.rank(known, group) for group in (*run.groups, None)}
    return {
        group: point_of[first[0].checkpoint.step] if first else saved[-1] for group, first in ranked.items()
    }
