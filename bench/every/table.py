"""Figures as a table of docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterable

from bench.figures import Figure, machine, told


def markdown(figures: Iterable[Figure]) -> str:
    """A table, a line per figure, with the machine above it."""
    on = machine()
    lines = [
        f"{on['cores']} × {on['processor']}, Python {on['python']}.",
        "",
        "| figure | measured | aim | | what was held against what |",
        "| --- | ---: | ---: | --- | --- |",
    ]
    for figure in figures:
        sign = "≥" if figure.higher_is_better else "≤"
        aim = "" if figure.aim is None else f"{sign} {figure.aim:g}"
        met = {None: "", True: "met", False: "**missed**"}[figure.met]
        lines.append(f"| {figure.name} | {told(figure)} | {aim} | {met} | {figure.detail} |")
    return "\n".join(lines)
