"""Cohorts as groups that scores can be held against: the paper's `Pretrain@t*` (§3.2, B.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.analysis.coefficients import MIN_POINTS
from pathwatch.server.analysis.cohort_series import ALL, MEMORIZED, cohort_series
from pathwatch.server.analysis.cohorts import GroupCohorts
from pathwatch.server.analysis.pairing import GroupEmbeddings
from pathwatch.server.analysis.scores import ScoreSeries, Target
from pathwatch.server.analysis.series import GroupSeries
from pathwatch.server.metrics.summary import MetricSettings
from pathwatch.server.traces import Trace


def cohort_groups(
    trace: Trace, groups: Sequence[GroupCohorts], points: Sequence[int]
) -> tuple[GroupSeries, ...]:
    """The metrics of each cohort over log points `points`, from when all of its samples are memorized."""
    return tuple(
        GroupSeries(
            group=_name(series.group, series.cohort),
            steps_T=series.steps_S,
            metrics=series.metrics,
            memorized_step=int(series.steps_S[0]),
        )
        for series in cohort_series(trace, groups, points, MetricSettings())
        if series.cohort not in {ALL, MEMORIZED}
    )


def cohort_scores(
    scores: Mapping[tuple[str, str], ScoreSeries], groups: Sequence[GroupCohorts]
) -> Mapping[tuple[str, str], ScoreSeries]:
    """Scores by (cohort, test): a cohort takes those of its group; others stay as they are."""
    names = {group.group: [_name(group.group, cohort.name) for cohort in group.cohorts] for group in groups}
    return {(name, test): one for (group, test), one in scores.items() for name in names.get(group, [group])}


def cohort_embeddings(
    embeddings: Mapping[str, GroupEmbeddings], trace: Trace, groups: Sequence[GroupCohorts]
) -> Mapping[str, NDArray[np.floating]]:
    """Embeddings [M, D] of the texts of each cohort that has any.

    A text belongs to a sample by its id: as in `meta.sample_ids` of the trace, or else its place there.
    Raises ValueError for embeddings without ids.
    """
    known = trace.meta.get("sample_ids")
    found = {}
    for group in groups:
        if group.group not in embeddings:
            continue
        texts = embeddings[group.group]
        if texts.ids_M is None:
            raise ValueError(f"texts of group {group.group!r} have no `id` to tell their cohort by")
        of_trace = known.get(group.group) if isinstance(known, Mapping) else None
        ids_N = np.arange(trace.samples) if of_trace is None else np.array(of_trace)
        for cohort in group.cohorts:
            chosen_M = np.isin(texts.ids_M, ids_N[cohort.samples_M])
            if chosen_M.any():
                found[_name(group.group, cohort.name)] = texts.vectors_MD[chosen_M]
    return found


def long_enough(targets: Sequence[Target]) -> tuple[tuple[Target, ...], tuple[str, ...]]:
    """Cohorts with scores enough to correlate, and remarks on the others: many end up late in the run."""
    kept, remarks = [], []
    for target in targets:
        scored = int((target.scores.steps_S >= target.series.steps_T[0]).sum())
        if scored < MIN_POINTS:
            remarks.append(f"Cohort {target.series.group}: {scored} scores since it was memorized: left out.")
        else:
            kept.append(target)
    return tuple(kept), tuple(remarks)


def _name(group: str, cohort: str) -> str:
    return f"{group} {cohort}"
