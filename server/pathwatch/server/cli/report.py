"""`pathwatch report`."""

from __future__ import annotations

from pathlib import Path

import click

from pathwatch.server.cli.connection import Connection, connection_options
from pathwatch.server.cli.options import Command, fail, require


@click.command("report", cls=Command)
@click.argument("run")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder for report.html and report.png; made if it is not there.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Scores to judge by: steps [T], groups [G], test_acc or val_loss [T, G].",
)
@connection_options()
def command(connection: Connection, run: str, out: Path, labels: Path | None) -> None:
    """Draw RUN: metrics, phases, the chosen checkpoint, and the reasons in words."""
    require("report", "matplotlib", "jinja2")
    from pathwatch.server.report.data import NothingToReportError, run_history
    from pathwatch.server.report.labels import LabelsError, load_labels
    from pathwatch.server.report.write import write_report

    try:
        judged_by = None if labels is None else load_labels(labels)
        with connection.client() as client:
            history = run_history(client.get_run(run), client.get_metrics(run))
        page, picture = write_report(out, history, judged_by)
    except (NothingToReportError, LabelsError, OSError) as error:
        fail(error)
    click.echo(f"{page}\n{picture}")
