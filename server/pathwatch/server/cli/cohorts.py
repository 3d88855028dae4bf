"""`pathwatch cohorts`."""

from __future__ import annotations

from pathlib import Path

import click

from pathwatch.server.cli.connection import Connection, connection_options
from pathwatch.server.cli.options import Command, fail, json_option, print_json, require


def _epsilon(ctx: click.Context, param: click.Parameter, value: str) -> float | None:
    """A number of nats; None for `auto`."""
    if value == "auto":
        return None
    try:
        epsilon = float(value)
    except ValueError:
        epsilon = -1.0
    if not 0 <= epsilon < float("inf"):
        raise click.BadParameter(f"{value!r} is neither a number of nats from 0 up nor `auto`")
    return epsilon


@click.command("cohorts", cls=Command)
@click.argument("source", metavar="RUN|TRACE")
@click.option("--group", "groups", multiple=True, help="Only this group; may be repeated.")
@click.option(
    "--epsilon",
    metavar="X|auto",
    callback=_epsilon,
    default="auto",
    show_default=True,
    help="Largest loss that counts as memorized, nats. auto: per group the smallest multiple of 0.1 under "
    "which at least 20 % of the samples end.",
)
@click.option(
    "--delta",
    type=click.FloatRange(min=0),
    default=0.05,
    show_default=True,
    help="How far a memorized sample's loss may be from its last one, nats.",
)
@click.option(
    "--cohorts",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Cohorts per group at most; neighbouring t* are merged into ones of near-equal size.",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Metrics at every so many log points, and at the last. t* always rests on all of them.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder for CSV files, one value a row, and the pictures; made if it is not there.",
)
@connection_options()
@json_option
def command(
    connection: Connection,
    source: str,
    groups: tuple[str, ...],
    epsilon: float | None,
    delta: float,
    cohorts: int,
    every: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """The paper's figures for the recorded run TRACE (.npz) or the RUN of a server that keeps observations.

    Samples of a group are sorted into cohorts by t*, the step since when they are memorized: loss at most ε
    and within δ of their last loss. For all samples, for those memorized by each point, and for each cohort
    from its t* on: every metric over time, quadratic trends, distances by layer and threshold; and whether
    the picture changes with ε, δ, across groups, or with routing entropy (docs/cohorts.md).
    """
    require("server", "rapidfuzz", "scipy")
    if out is not None:
        require("report", "matplotlib")
    from pathwatch.server.analysis.cohort_study import StudySettings, cohort_study
    from pathwatch.server.cli.cohort_lines import cohort_lines
    from pathwatch.server.cli.progress import tracked
    from pathwatch.server.cli.recording import recorded_run

    trace = recorded_run(source, connection)
    settings = StudySettings(groups=groups, epsilon=epsilon, delta=delta, cohorts=cohorts, every=every)
    try:
        study = cohort_study(trace, settings, follow=lambda points: tracked(points, trace.name, len(points)))
        if out is not None:
            from pathwatch.server.cli.cohort_files import write_cohorts

            written = write_cohorts(out, study)
    except (ValueError, OSError) as error:
        fail(error)
    if as_json:
        for group in study:
            for line in cohort_lines(trace.name, group):
                print_json(line)
        return
    from rich.console import Console

    from pathwatch.server.cli.tables import report_table
    from pathwatch.server.report.cohort_tables import cohort_tables

    console = Console()
    for shown in cohort_tables(study):
        console.print(report_table(shown))
    if out is not None:
        console.print(f"{len(written)} files in {out}", highlight=False)
