"""The series that `correlate` holds against scores: of the groups of a run, or of their cohorts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from numpy import floating
from numpy.typing import NDArray

from pathwatch.server.analysis.cohort_scores import cohort_embeddings, cohort_groups, cohort_scores
from pathwatch.server.analysis.cohorts import group_cohorts
from pathwatch.server.analysis.pairing import GroupEmbeddings
from pathwatch.server.analysis.scores import ScoreSeries
from pathwatch.server.analysis.series import GroupSeries, trace_series
from pathwatch.server.cli.connection import Connection
from pathwatch.server.cli.options import fail
from pathwatch.server.cli.progress import tracked
from pathwatch.server.cli.recording import recorded_run
from pathwatch.server.cli.told_history import told_history
from pathwatch.server.engine.run_config import DEFAULT_DELTA
from pathwatch.server.report.data import NothingToReportError
from pathwatch.server.report.run_series import run_series


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What is held against each other; all by the same names."""

    series: tuple[GroupSeries, ...]
    scores: Mapping[tuple[str, str], ScoreSeries]
    validation: Mapping[tuple[str, str], ScoreSeries]
    vectors: Mapping[str, NDArray[floating]]
    """Embeddings of the training texts; empty where none are given."""


def of_groups(
    source: str,
    connection: Connection,
    scores: Mapping[tuple[str, str], ScoreSeries],
    validation: Mapping[tuple[str, str], ScoreSeries],
    texts: Mapping[str, GroupEmbeddings],
) -> Material:
    """Whole groups: the metrics of a trace, computed here, or of a run as the server told them."""
    return Material(
        series=_trace_series(source, connection) if source.endswith(".npz") else _told(source, connection),
        scores=scores,
        validation=validation,
        vectors={group: one.vectors_MD for group, one in texts.items()},
    )


def of_cohorts(
    source: str,
    connection: Connection,
    scores: Mapping[tuple[str, str], ScoreSeries],
    validation: Mapping[tuple[str, str], ScoreSeries],
    texts: Mapping[str, GroupEmbeddings],
    limit: int,
) -> Material:
    """At most `limit` cohorts of each group of a recorded run; ValueError for texts without sample ids."""
    trace = recorded_run(source, connection)
    groups = [
        group_cohorts(trace, group, epsilon=None, delta=DEFAULT_DELTA, limit=limit) for group in trace.groups
    ]
    return Material(
        series=cohort_groups(trace, groups, range(len(trace.steps_T))),
        scores=cohort_scores(scores, groups),
        validation=cohort_scores(validation, groups),
        vectors=cohort_embeddings(texts, trace, groups),
    )


def _trace_series(source: str, connection: Connection) -> tuple[GroupSeries, ...]:
    trace = recorded_run(source, connection)
    points = range(len(trace.steps_T))
    return trace_series(trace, tracked(points, trace.name, len(points)))


def _told(run: str, connection: Connection) -> tuple[GroupSeries, ...]:
    try:
        with connection.client() as client:
            return run_series(told_history(client.get_run(run), client))
    except NothingToReportError as error:
        fail(error)
