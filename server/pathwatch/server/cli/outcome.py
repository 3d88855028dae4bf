"""What came of the demo: report, summary, and how the chosen checkpoints do against other rules."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from pathwatch.server.report.data import GroupHistory, RunHistory
from pathwatch.server.report.labels import Comparison, JudgedCheckpoint, Labels, compare
from pathwatch.server.report.write import write_report


def judge(out: Path, console: Console, history: RunHistory, labels: Labels, *, seed: int) -> bool:
    """Writes report and `summary.json` into `out` and prints a line per group; True when a group was said to
    generalize and a checkpoint chosen for it."""
    write_report(out, history, labels)
    comparisons = {group.group: compare(group, labels) for group in history.groups}
    judged = any(_judged(group) for group in history.groups)
    summary = {
        "run": history.run,
        "seed": seed,
        "judged": judged,
        "last_step": history.last_step,
        "stop_at_step": None if history.stop is None else history.stop.stop_at_step,
        "best_checkpoint_step": history.best_checkpoint_step,
        "groups": {group.group: _summary(group, comparisons[group.group]) for group in history.groups},
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    for group in history.groups:
        console.print(_line(group, comparisons[group.group]), highlight=False, soft_wrap=True)
    return judged


def _judged(group: GroupHistory) -> bool:
    return group.first("GENERALIZING", "GENERALIZED") is not None and group.best_checkpoint_step is not None


def _summary(group: GroupHistory, comparison: Comparison | None) -> dict[str, object]:
    def of(checkpoint: JudgedCheckpoint | None) -> dict[str, object] | None:
        return None if checkpoint is None else {"step": checkpoint.step, "score": round(checkpoint.score, 4)}

    return {
        "phase_history": [
            {"phase": span.phase, "step": span.first_step, "reason": span.reason} for span in group.spans
        ],
        "chosen_checkpoint": group.best_checkpoint_step,
        "test_accuracy": None
        if comparison is None
        else {
            "chosen": of(comparison.chosen),
            "best": of(comparison.best),
            "last": of(comparison.last),
            "loss_patience": of(comparison.loss_patience),
        },
    }


def _line(group: GroupHistory, comparison: Comparison | None) -> str:
    stands = f"{group.group}: {group.phase.lower()} since step {group.since_step}"
    if comparison is None:
        return f"{stands}; no labels to judge by"

    def said(name: str, checkpoint: JudgedCheckpoint | None) -> str:
        return (
            f"{name} –" if checkpoint is None else f"{name} {checkpoint.score:.3f} (step {checkpoint.step})"
        )

    rules = ", ".join(
        (
            said("chosen", comparison.chosen),
            said("best", comparison.best),
            said("last", comparison.last),
            said("loss patience", comparison.loss_patience),
        )
    )
    return f"{stands}; {comparison.measure} of checkpoints: {rules}"
