"""Tables for a terminal or a log, whatever its width."""

from __future__ import annotations

from collections.abc import Sequence

from bench.signal.methods import MethodScore
from bench.signal.scoring import GroupScore
from bench.signal.summary import Summary

SHORT = {"UNKNOWN": "?", "LEARNING": "learning", "MEMORIZED": "memorized", "REGRESSING": "regressing"}
"""Phases that need no emphasis in a row of phases."""
DASH = "–"


def group_table(method: MethodScore) -> str:
    """One line per group of each run."""
    header = ["run", "group", "labels say", "chosen", "its score", "best", "last", "stop", "saved", "phases"]
    rows = [
        [
            run.run,
            group.group,
            _truth(group),
            str(group.at_stop.step),
            f"{group.at_stop.score:.3f}",
            f"{group.best.score:.3f}",
            f"{group.last.score:.3f}",
            DASH if run.stop_step is None else str(run.stop_step),
            f"{run.saved:.2f}",
            " ".join(f"{step}:{SHORT.get(phase, phase)}" for step, phase in group.phases),
        ]
        for run in method.runs
        for group in run.groups
    ]
    return _aligned([header, *rows], left=(0, 1, 2, 9))


def accuracy_table(methods: Sequence[tuple[str, Summary]]) -> str:
    """One line per method: groups with test accuracy."""
    header = ["method", "found", "lead", "confirmed", "false onsets", "false confirmed"]
    header += ["regret at stop", "regret at end", "cut off", "saved"]
    legend = (
        "lead: steps from GENERALIZING to accuracy 0.5, median [range]; confirmed (before 0.5); false onsets "
        "(withdrawn);\nregret: mean median worst; cut off: groups stopped before 0.5; saved: share of steps"
    )
    return (
        f"{legend}\n{_aligned([header, *([name, *_accuracy_cells(numbers)] for name, numbers in methods)])}"
    )


def text_table(methods: Sequence[tuple[str, Summary]]) -> str:
    """One line per method: groups with validation loss."""
    header = ["method", "said overfitting", "generalized", "over minimum", "at end"]
    header += ["healthy: said overfitting", "generalized", "over minimum", "at end", "told to stop"]
    legend = (
        "first overfitting groups, then healthy ones; over minimum: the chosen checkpoint, at the stop and\n"
        "at the end, mean worst; told to stop: runs with a healthy group"
    )
    return f"{legend}\n{_aligned([header, *([name, *_text_cells(numbers)] for name, numbers in methods)])}"


def _accuracy_cells(numbers: Summary) -> list[str]:
    learned, never = numbers["groups_learned"], numbers["groups_never"]
    lead = f"{_whole(numbers['lead_median'])} [{_whole(numbers['lead_min'])}, {_whole(numbers['lead_max'])}]"
    return [
        f"{numbers['found']} of {learned}",
        lead if numbers["found"] else DASH,
        f"{numbers['confirmed']} ({numbers['confirmed_early']})",
        f"{numbers['false_onsets']} ({numbers['false_onsets_withdrawn']}) of {never}",
        f"{numbers['false_confirmed']}",
        _regret(numbers, "regret_at_stop"),
        _regret(numbers, "regret_at_end"),
        f"{numbers['cut_off']}",
        _number(numbers["saved"], ".2f"),
    ]


def _text_cells(numbers: Summary) -> list[str]:
    overfit, healthy = numbers["text_groups_overfit"], numbers["text_groups_healthy"]
    return [
        f"{numbers['text_overfit_said_overfitting']} of {overfit}",
        f"{numbers['text_overfit_called_generalized']}",
        _percent(numbers, "text_overfit_at_stop"),
        _percent(numbers, "text_overfit_at_end"),
        f"{numbers['text_healthy_said_overfitting']} of {healthy}",
        f"{numbers['text_healthy_called_generalized']}",
        _percent(numbers, "text_healthy_at_stop"),
        _percent(numbers, "text_healthy_at_end"),
        f"{numbers['text_runs_healthy_stopped']} of {numbers['text_runs_healthy']}",
    ]


def regret_line(numbers: Summary) -> str:
    """The stricter ways to read the regret of a method that says when to save."""
    return (
        "regret at stop (mean median worst) with checkpoints saved only when told: "
        f"{_regret(numbers, 'regret_of_told')}; with one checkpoint for all groups: "
        f"{_regret(numbers, 'regret_for_all')}"
    )


def _truth(group: GroupScore) -> str:
    if group.accuracy:
        return "never" if group.learned_step is None else f"0.5 at {group.learned_step}"
    return "overfits" if group.overfits else "healthy"


def _regret(numbers: Summary, name: str) -> str:
    return " ".join(_number(numbers[f"{name}_{part}"], ".3f") for part in ("mean", "median", "max"))


def _percent(numbers: Summary, name: str) -> str:
    return " ".join(_number(numbers[f"{name}_{part}"], ".1%") for part in ("mean", "max"))


def _whole(value: float | None) -> str:
    return _number(value, ".0f")


def _number(value: float | None, form: str) -> str:
    return DASH if value is None else format(value, form)


def _aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Columns two spaces apart, flush right except those named."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
