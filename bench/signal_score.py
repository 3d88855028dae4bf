"""Scores the default detector and policy on recorded runs: `python bench/signal_score.py TRACES LABELS`.

Every trace is played step by step; each traced step counts as a registered checkpoint. Labels only judge.
`--variant` damages the traces first, to see what the verdicts hang on. Prints a table, `--json` writes all.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.metrics.window import WindowArrays
from pathwatch.server.phases.detector import PathwayDropDetector
from pathwatch.server.phases.policies import AllGroups
from pathwatch.server.phases.verdict import Action, Checkpoint, Evidence, Phase
from pathwatch.server.report.labels import Labels, load_labels, loss_patience_step
from pathwatch.server.traces import Trace, load_trace

SHORT = {
    "UNKNOWN": "?",
    "LEARNING": "learning",
    "MEMORIZED": "memorized",
    "GENERALIZING": "GENERALIZING",
    "GENERALIZED": "DONE",
    "OVERFITTING": "OVERFITTING",
    "REGRESSING": "regressing",
}
LEARNED = 0.5
"""Smoothed test accuracy from which a group counts as generalized."""


def half_samples(trace: Trace) -> Trace:
    """Every other sample."""
    return replace(
        trace,
        losses_TGN=trace.losses_TGN[:, :, ::2],
        weights_TGNLK=trace.weights_TGNLK[:, :, ::2],
        target_weights_TGNLK=None
        if trace.target_weights_TGNLK is None
        else trace.target_weights_TGNLK[:, :, ::2],
        targets_GN=None if trace.targets_GN is None else trace.targets_GN[:, ::2],
        visits_TGN=None if trace.visits_TGN is None else trace.visits_TGN[:, :, ::2],
    )


def at_points(trace: Trace, points: NDArray[np.intp], steps_T: NDArray[np.int64]) -> Trace:
    """The log points named, at new steps."""
    return replace(
        trace,
        steps_T=steps_T,
        losses_TGN=trace.losses_TGN[points],
        weights_TGNLK=trace.weights_TGNLK[points],
        target_weights_TGNLK=None
        if trace.target_weights_TGNLK is None
        else trace.target_weights_TGNLK[points],
        visits_TGN=None if trace.visits_TGN is None else trace.visits_TGN[points],
    )


def thinned(trace: Trace) -> Trace:
    """Every other log point."""
    points = np.arange(0, len(trace.steps_T), 2)
    return at_points(trace, points, trace.steps_T[points])


def repeated(trace: Trace, times: int = 8) -> Trace:
    """Every log point 8 times, the steps between spread evenly (and × 8, so that they stay whole)."""
    points = np.repeat(np.arange(len(trace.steps_T)), times)
    gaps = np.diff(trace.steps_T, append=2 * trace.steps_T[-1] - trace.steps_T[-2])
    offsets = np.tile(np.arange(times), len(trace.steps_T)) * np.repeat(gaps, times)
    return at_points(trace, points, np.repeat(trace.steps_T, times) * times + offsets)


VARIANTS: dict[str, Callable[[Trace], Trace]] = {
    "as-is": lambda trace: trace,
    "half-samples": half_samples,
    "thinned": thinned,
    "repeated": repeated,
    "steps-x250": lambda trace: replace(trace, steps_T=trace.steps_T * 250),
    "no-targets": lambda trace: replace(trace, targets_GN=None),
    "no-visits": lambda trace: replace(trace, visits_TGN=None),
}


@dataclass(kw_only=True)
class GroupScore:
    """How one group was judged. Scores are smoothed test accuracy or validation loss."""

    run: str
    group: str
    measure: str
    learned_step: int | None
    """First step at `LEARNED`; None = never, or a text group."""
    phases: list[tuple[int, str]] = field(default_factory=list)
    best: float = np.nan
    last: float = np.nan
    chosen: float = np.nan
    """At the checkpoint chosen when the run was stopped, or at its end."""
    chosen_step: int = -1
    chosen_at_end: float = np.nan
    """At the checkpoint chosen at the end of the run, stopped or not."""
    at_smallest_loss: float = np.nan
    at_loss_patience: float = np.nan

    def first(self, phase: Phase) -> int | None:
        """First step in a phase."""
        return next((step for step, name in self.phases if name == phase.name), None)


@dataclass(kw_only=True)
class RunScore:
    """How one run was judged."""

    run: str
    groups: list[GroupScore]
    stop_step: int | None
    saved: float
    """Share of the steps after STOP."""
    forgone: float
    """Largest gain in a group's score between STOP and the rest of the run (accuracy, or relative loss)."""


def measured(trace: Trace) -> list[dict[str, Evidence]]:
    """The evidence of every round."""
    detector = PathwayDropDetector()
    return [
        {
            name: detector.measure(
                WindowArrays(
                    group=name,
                    first_step=int(step),
                    step=int(step),
                    sample_ids_N=np.arange(trace.samples, dtype=np.int64),
                    losses_N=trace.losses_TGN[t, g].astype(np.float64),
                    weights_NLK=trace.weights_TGNLK[t, g].astype(np.float32),
                    target_weights_NLK=None
                    if trace.target_weights_TGNLK is None
                    else trace.target_weights_TGNLK[t, g].astype(np.float32),
                    targets_N=None if trace.targets_GN is None else trace.targets_GN[g],
                    visits_N=None if trace.visits_TGN is None else trace.visits_TGN[t, g],
                    tokens_N=np.ones(trace.samples, dtype=np.int64),
                )
            )
            for g, name in enumerate(trace.groups)
        }
        for t, step in enumerate(trace.steps_T)
    ]


def judge(trace: Trace, rounds: Sequence[dict[str, Evidence]], labels: Labels) -> RunScore:
    """Play a run and score it."""
    detector, policy = PathwayDropDetector(), AllGroups()
    checkpoints = [Checkpoint(step=int(step), tag=str(step), attempt=0) for step in trace.steps_T]
    scores = {name: _group_score(trace, labels, name) for name in trace.groups}
    stop_step: int | None = None
    for step, round_ in zip(trace.steps_T.tolist(), rounds, strict=True):
        verdicts = detector.update(step, round_)
        for name, verdict in verdicts.items():
            phases = scores[name].phases
            if not phases or phases[-1][1] != verdict.phase.name:
                phases.append((step, verdict.phase.name))
        action = policy.decide(step, verdicts).action
        if stop_step is None and action is Action.STOP:
            stop_step = step
            for name, score in scores.items():
                score.chosen_step, score.chosen = _choice(detector, checkpoints, labels, trace, name)
    for name, score in scores.items():
        at_end = _choice(detector, checkpoints, labels, trace, name)
        score.chosen_at_end = at_end[1]
        if stop_step is None:
            score.chosen_step, score.chosen = at_end
    forgone = max(_forgone(labels, trace, name, stop_step) for name in trace.groups)
    last = int(trace.steps_T[-1])
    saved = 0.0 if stop_step is None else 1 - stop_step / last
    return RunScore(
        run=trace.name, groups=list(scores.values()), stop_step=stop_step, saved=saved, forgone=forgone
    )


def _scores_T(labels: Labels, trace: Trace, name: str) -> NDArray[np.float64]:
    """Smoothed score at every step of the trace, which a variant may have thinned or stretched."""
    smoothed = labels.smoothed(name)
    if smoothed is None:
        raise ValueError(f"{trace.name}: no labels for group {name!r}")
    share = trace.steps_T / max(int(trace.steps_T[-1]), 1) * labels.steps_T[-1]
    nearest = np.abs(labels.steps_T[None, :] - share[:, None]).argmin(axis=1)
    return smoothed[nearest]


def _group_score(trace: Trace, labels: Labels, name: str) -> GroupScore:
    scores_T = _scores_T(labels, trace, name)
    losses_T = trace.losses_TGN[:, trace.groups.index(name)].mean(axis=1).astype(np.float64)
    learned = np.flatnonzero(scores_T >= LEARNED) if labels.higher_is_better else []
    patience = np.searchsorted(trace.steps_T, loss_patience_step(trace.steps_T, losses_T))
    return GroupScore(
        run=trace.name,
        group=name,
        measure=labels.measure,
        learned_step=int(trace.steps_T[learned[0]]) if len(learned) else None,
        best=float(scores_T.max() if labels.higher_is_better else scores_T.min()),
        last=float(scores_T[-1]),
        at_smallest_loss=float(scores_T[losses_T.argmin()]),
        at_loss_patience=float(scores_T[patience]),
    )


def _choice(
    detector: PathwayDropDetector, checkpoints: Sequence[Checkpoint], labels: Labels, trace: Trace, name: str
) -> tuple[int, float]:
    """Step and score of the checkpoint chosen for a group now."""
    step = detector.rank(checkpoints, name)[0].checkpoint.step
    return step, float(_scores_T(labels, trace, name)[np.searchsorted(trace.steps_T, step)])


def _forgone(labels: Labels, trace: Trace, name: str, stop_step: int | None) -> float:
    if stop_step is None:
        return 0.0
    scores_T = _scores_T(labels, trace, name)
    seen, after = scores_T[trace.steps_T <= stop_step], scores_T[trace.steps_T > stop_step]
    if not len(after):
        return 0.0
    if labels.higher_is_better:
        return max(0.0, float(after.max() - seen.max()))
    return max(0.0, float(1 - after.min() / seen.min()))


def summary(runs: Sequence[RunScore]) -> dict[str, float]:
    """The numbers of SIGNAL §5."""
    groups = [group for run in runs for group in run.groups]
    tested = [group for group in groups if group.measure == "test accuracy"]
    learned = [group for group in tested if group.learned_step is not None]
    never = [group for group in tested if group.learned_step is None]
    found = [group for group in learned if group.first(Phase.GENERALIZING) is not None]
    leads = [group.learned_step - _standing_onset(group) for group in found if group.learned_step is not None]
    text = [group for group in groups if group.measure != "test accuracy"]
    overfit = [group for group in text if group.last > 1.02 * group.best]
    stopped = [run for run in runs if run.groups[0].measure == "test accuracy"]
    return {
        "groups_learned": len(learned),
        "found": len(found),
        "confirmed": sum(group.first(Phase.GENERALIZED) is not None for group in learned),
        "lead_steps_median": _median(leads),
        "groups_never": len(never),
        "false_onsets": sum(group.first(Phase.GENERALIZING) is not None for group in never),
        "false_confirmed": sum(group.first(Phase.GENERALIZED) is not None for group in never),
        "regret_chosen": _mean([group.best - group.chosen for group in learned]),
        "regret_chosen_median": _median([group.best - group.chosen for group in learned]),
        "regret_chosen_at_end": _mean([group.best - group.chosen_at_end for group in learned]),
        "regret_chosen_worst": max((group.best - group.chosen for group in learned), default=np.nan),
        "regret_last": _mean([group.best - group.last for group in learned]),
        "regret_smallest_loss": _mean([group.best - group.at_smallest_loss for group in learned]),
        "regret_loss_patience": _mean([group.best - group.at_loss_patience for group in learned]),
        "saved_mean": _mean([run.saved for run in stopped]),
        "forgone_worst": max((run.forgone for run in stopped), default=np.nan),
        "text_groups_overfit": len(overfit),
        "text_overfit_said": sum(group.first(Phase.OVERFITTING) is not None for group in overfit),
        "text_overfit_generalized": sum(group.first(Phase.GENERALIZED) is not None for group in overfit),
        "text_healthy_said_overfitting": sum(
            group.first(Phase.OVERFITTING) is not None for group in text if group not in overfit
        ),
        "text_chosen_over_minimum": _mean([group.chosen / group.best - 1 for group in text]),
        "text_chosen_at_end_over_minimum": _mean([group.chosen_at_end / group.best - 1 for group in text]),
        "text_last_over_minimum": _mean([group.last / group.best - 1 for group in text]),
        "text_healthy_runs_stopped": sum(
            run.stop_step is not None and any(group not in overfit for group in run.groups)
            for run in runs
            if run.groups[0].measure != "test accuracy"
        ),
    }


def _standing_onset(group: GroupScore) -> int:
    """The onset that was not withdrawn; the first where all were."""
    onsets: list[int] = []
    for step, name in group.phases:
        if name == Phase.MEMORIZED.name:
            onsets.clear()
        elif name == Phase.GENERALIZING.name:
            onsets.append(step)
    return onsets[0] if onsets else group.first(Phase.GENERALIZING) or 0


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else float("nan")


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def table(runs: Sequence[RunScore]) -> str:
    """One line per group."""
    lines = ["run | group | 0.5 at | phases | chosen | best | chosen at | last | patience | stop | saved"]
    for run in runs:
        for group in run.groups:
            phases = " ".join(f"{step}:{SHORT[name]}" for step, name in group.phases)
            lines.append(
                f"{group.run} | {group.group} | {group.learned_step} | {phases} | {group.chosen_step} | "
                f"{group.best:.3f} | {group.chosen:.3f} | {group.last:.3f} | {group.at_loss_patience:.3f} | "
                f"{run.stop_step} | {run.saved:.2f}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("traces", type=Path, help="folder of trace v1 files")
    parser.add_argument("labels", type=Path, help="folder of NAME.labels.npz")
    parser.add_argument("--variant", choices=VARIANTS, default="as-is")
    parser.add_argument("--json", type=Path, help="write everything here")
    options = parser.parse_args()
    runs = []
    for path in sorted(options.traces.glob("*.npz")):
        trace = VARIANTS[options.variant](load_trace(path))
        labels = load_labels(options.labels / f"{path.stem}.labels.npz")
        runs.append(judge(trace, measured(trace), labels))
    print(table(runs))
    found = summary(runs)
    for name, value in found.items():
        print(f"{name:32s} {value:g}")
    if options.json:
        report = {"variant": options.variant, "summary": found, "runs": [asdict(run) for run in runs]}
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
