"""`pathwatch report`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pathwatch.server.cli.blas import one_blas_thread
from pathwatch.server.cli.connection import Connection, connection_options
from pathwatch.server.cli.options import Command, fail, require

if TYPE_CHECKING:
    from pathwatch.server.report.data import RunHistory
    from pathwatch.server.traces import Trace


@click.command("report", cls=Command)
@click.argument("source", metavar="RUN|TRACE")
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
    help="Scores to judge by: steps [T], groups [G], test_acc or val_loss [T, G]. The metrics are also "
    "correlated with them.",
)
@click.option(
    "--scores",
    type=click.Path(path_type=Path),
    metavar="FILE.csv",
    help="Scores to correlate the metrics with instead: step,score and, if wanted, group and test.",
)
@connection_options()
def command(connection: Connection, source: str, out: Path, labels: Path | None, scores: Path | None) -> None:
    """Draw the RUN of a server: metrics, phases, the chosen checkpoint, and the reasons in words.

    A recorded run (TRACE, .npz) is first played through a server of the command's own. Of a recorded run,
    and of one created with keep_observations, the page also shows what `pathwatch cohorts` and `bound` do.
    """
    require("report", "matplotlib", "jinja2", "rapidfuzz", "scipy")
    one_blas_thread()
    from pathwatch.server.analysis.scores import ScoresError
    from pathwatch.server.cli.report_sections import further_sections
    from pathwatch.server.cli.told_history import told_history
    from pathwatch.server.report.data import NothingToReportError
    from pathwatch.server.report.labels import LabelsError, load_labels
    from pathwatch.server.report.scores import load_scores
    from pathwatch.server.report.write import write_report

    kept: Trace | str
    try:
        judged_by = None if labels is None else load_labels(labels)
        measured = None if (given := scores or labels) is None else load_scores(given)
        if source.endswith(".npz"):
            from pathwatch.server.cli.recording import recorded_run

            trace = recorded_run(source, connection)
            kept = trace
            history = _played(trace)
        else:
            with connection.client() as client:
                run = client.get_run(source)
                history = told_history(run, client)
            kept = _kept(source, connection) if run.config.keep_observations else _NOT_KEPT
        sections = further_sections(history, kept, measured, must_fit=scores is not None)
        page, picture = write_report(out, history, judged_by, sections)
    except (NothingToReportError, LabelsError, ScoresError, OSError) as error:
        fail(error)
    click.echo(f"{page}\n{picture}")


_NOT_KEPT = (
    "the server did not keep this run's observations. Create the run with keep_observations, or give "
    "`pathwatch report` a recorded run (.npz)"
)


def _kept(run: str, connection: Connection) -> Trace | str:
    """The run as a trace, or why it does not make one."""
    from pathwatch.server.cli.recording import recorded_run

    try:
        return recorded_run(run, connection)
    except click.ClickException as error:
        return error.format_message()


def _played(trace: Trace) -> RunHistory:
    """What a live service would have said of a recorded run."""
    require("server", "grpc_health", "grpc_reflection", "prometheus_client")
    from pathwatch.client import PathwatchError
    from pathwatch.server.cli.playback import ReplayError, replay
    from pathwatch.server.cli.progress import tracked
    from pathwatch.server.cli.temporary_server import temporary_server
    from pathwatch.server.report.data import run_history

    run = re.sub(r"[^A-Za-z0-9_.-]", "-", trace.name)[:128]
    try:
        with temporary_server() as server:
            judged = replay(trace, address=server.address, credentials=server.credentials, run=run)
            for _ in tracked(judged, trace.name, len(trace.steps_T)):
                pass
            with server.client() as client:
                return run_history(client.get_run(run), client.get_metrics(run))
    except (ReplayError, PathwatchError) as error:
        fail(error)
