"""`pathwatch bound`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pathwatch.server.cli.connection import Connection, connection_options
from pathwatch.server.cli.options import Command, fail, json_option, print_json, require
from pathwatch.server.cli.recording import recorded_run

if TYPE_CHECKING:
    from rich.table import Table

    from pathwatch.server.analysis.bound import BoundSeries

_POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command("bound", cls=Command)
@click.argument("source", metavar="RUN|TRACE")
@click.option("--group", multiple=True, help="Only this group; may be repeated.")
@click.option(
    "--ridge",
    "ridges",
    type=_POSITIVE,
    multiple=True,
    help="λ; may be repeated. Default: 0.0001, 0.001, 0.01, 0.1, 1. 0.01 is always among them.",
)
@click.option(
    "--noise",
    type=_POSITIVE,
    default=1.0,
    show_default=True,
    help="σ², variance of the noise in the targets; 1 = the variance term in units of σ².",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Every so many log points, and the last.",
)
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the series here: one row per group, step and λ.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder for bound.csv and the picture bound.png; made if it is not there.",
)
@connection_options()
@json_option
def command(
    connection: Connection,
    source: str,
    group: tuple[str, ...],
    ridges: tuple[float, ...],
    noise: float,
    every: int,
    csv_file: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Effective dimension of the routing for several λ, and the variance term σ²·d_eff/n of the paper's
    generalization bound (Theorem 4.1), over the recorded run TRACE (.npz) or the RUN of a server.

    Lower = more shared routing. The bound's other terms are not computed (docs/bound.md).
    """
    require("server", "rapidfuzz", "scipy")
    if out is not None:
        require("report", "matplotlib")
    from rich.console import Console

    from pathwatch.server.analysis.bound import PUBLISHED_RIDGE, RIDGES, bound_series

    trace = recorded_run(source, connection)
    unknown = sorted(set(group) - set(trace.groups))
    if unknown:
        fail(f"{trace.name} has no group {', '.join(unknown)}; it has {', '.join(trace.groups)}")
    series = [
        one
        for one in bound_series(trace, ridges=ridges or RIDGES, noise=noise, every=every)
        if not group or one.group in group
    ]
    try:
        if csv_file is not None:
            _write_csv(csv_file, series)
        if out is not None:
            _write_folder(out, series)
    except OSError as error:
        fail(error)
    if as_json:
        for record in _records(series):
            print_json({"type": "bound", "run": trace.name, **record})
        for record in _agreements(series):
            print_json({"type": "ridge_agreement", "run": trace.name, **record})
    else:
        console = Console()
        console.print(_table(series))
        console.print(
            f"Effective dimension of n = {series[0].samples} samples a group; σ²·d_eff/n: at the last step, "
            f"σ² = {noise:g}; agrees: Spearman correlation over the run with λ = {PUBLISHED_RIDGE:g}."
        )


def _records(series: Sequence[BoundSeries]) -> Iterator[dict[str, object]]:
    """One per group, log point and λ."""
    for group in series:
        for p, step in enumerate(group.steps_P):
            for a, ridge in enumerate(group.ridges_A):
                yield {
                    "group": group.group,
                    "step": int(step),
                    "samples": group.samples,
                    "noise": group.noise,
                    "ridge": ridge,
                    "effective_dimension": float(group.dimensions_PA[p, a]),
                    "variance_term": float(group.variance_PA[p, a]),
                }


def _agreements(series: Sequence[BoundSeries]) -> Iterator[dict[str, object]]:
    """One per group and λ: does the series keep its order under another λ?"""
    from pathwatch.server.analysis.bound import PUBLISHED_RIDGE, ridge_agreement

    for group in series:
        for ridge, agreement in zip(group.ridges_A, ridge_agreement(group), strict=True):
            yield {
                "group": group.group,
                "ridge": ridge,
                "published_ridge": PUBLISHED_RIDGE,
                "points": len(group.steps_P),
                "spearman": agreement,
            }


def _table(series: Sequence[BoundSeries]) -> Table:
    from pathwatch.server.analysis.bound import ridge_agreement
    from pathwatch.server.cli.tables import sparkline, table

    numbers = ("λ", "first", "highest", "at step", "last", "σ²·d_eff/n", "agrees")
    listing = table("group", *numbers, "course", right=numbers)
    for group in series:
        agreement_A = ridge_agreement(group)
        for a, ridge in enumerate(group.ridges_A):
            dimensions_P = group.dimensions_PA[:, a]
            highest = int(dimensions_P.argmax())
            agreement = agreement_A[a]
            listing.add_row(
                group.group if a == 0 else "",
                f"{ridge:g}",
                f"{dimensions_P[0]:.2f}",
                f"{dimensions_P[highest]:.2f}",
                str(group.steps_P[highest]),
                f"{dimensions_P[-1]:.2f}",
                f"{group.variance_PA[-1, a]:.3g}",
                "–" if agreement is None else f"{agreement:+.2f}",
                sparkline(dimensions_P.tolist(), width=10),
            )
    return listing


def _write_csv(path: Path, series: Sequence[BoundSeries]) -> None:
    records = list(_records(series))
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, fieldnames=list(records[0]))
        rows.writeheader()
        rows.writerows(records)


def _write_folder(folder: Path, series: Sequence[BoundSeries]) -> None:
    from pathwatch.server.report.bound_figure import draw_bound
    from pathwatch.server.report.figure import to_png

    folder.mkdir(parents=True, exist_ok=True)
    _write_csv(folder / "bound.csv", series)
    (folder / "bound.png").write_bytes(to_png(draw_bound(series)))
