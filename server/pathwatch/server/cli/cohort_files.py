"""The files of `pathwatch cohorts --out`: one CSV per kind of result, one value a row, and the pictures."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from pathwatch.server.analysis.cohort_study import EntropyAgreement, GroupStudy, ThresholdAgreement

Row: TypeAlias = tuple[object, ...]


def write_cohorts(folder: Path, study: Sequence[GroupStudy]) -> list[Path]:
    """Makes the folder and the files in it and returns their paths; undefined values are left empty."""
    from pathwatch.server.report.cohort_section import cohort_pictures
    from pathwatch.server.report.figure import to_png

    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "samples": (("group", "sample", "memorized_step", "cohort"), _samples),
        "memorized": (("group", "step", "new", "cumulative"), _memorized),
        "metrics": (("group", "cohort", "step", "samples", "metric", "value"), _metrics),
        "layers": (("group", "cohort", "step", "samples", "layer", "path_distance"), _layers),
        "trends": (_TREND_HEADER, _trends),
        "thresholds": (("group", "cohort", "threshold", "other_threshold", *_CORRELATION), _thresholds),
        "limits": (_LIMIT_HEADER, _limits),
        "limit_series": (("group", "epsilon", "delta", "step", "path_distance"), _limit_series),
        "entropy": (("group", "cohort", *_CORRELATION), _entropy),
    }
    written = []
    for name, (header, rows) in tables.items():
        written.append(folder / f"{name}.csv")
        _write(written[-1], header, (row for group in study for row in rows(group)))
    for name, figure in cohort_pictures(study).items():
        written.append(folder / f"{name}.png")
        written[-1].write_bytes(to_png(figure))
    return written


_TREND_HEADER = (
    *("group", "cohort", "metric", "points", "intercept", "slope_start", "slope_end", "curvature"),
    *("curvature_stderr", "r_squared", "shape"),
)
_LIMIT_HEADER = ("group", "epsilon", "delta", "memorized_samples", "median_step", "spearman")
_CORRELATION = ("points", "spearman", "spearman_p_adjusted", "pearson", "pearson_p_adjusted")


def _write(path: Path, header: Row, rows: Iterable[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _samples(study: GroupStudy) -> Iterator[Row]:
    cohort_of = {int(sample): cohort.name for cohort in study.cohorts.cohorts for sample in cohort.samples_M}
    for sample, step in enumerate(study.cohorts.memorized_steps_N.tolist()):
        yield study.group, sample, step if step >= 0 else None, cohort_of.get(sample)


def _memorized(study: GroupStudy) -> Iterator[Row]:
    counts = study.counts
    for step, new, cumulative in zip(
        counts.steps_T.tolist(), counts.new_T.tolist(), counts.cumulative_T.tolist(), strict=True
    ):
        yield study.group, step, new, cumulative


def _metrics(study: GroupStudy) -> Iterator[Row]:
    for series in study.series:
        for metric, values_S in series.metrics.items():
            for step, samples, value in zip(
                series.steps_S.tolist(), series.samples_S.tolist(), values_S.tolist(), strict=True
            ):
                if np.isfinite(value):
                    yield study.group, series.cohort, step, samples, metric, value


def _layers(study: GroupStudy) -> Iterator[Row]:
    for series in study.series:
        for at, distances_L in enumerate(series.layer_path_distance_SL.tolist()):
            for layer, distance in enumerate(distances_L):
                yield (
                    *(study.group, series.cohort, int(series.steps_S[at]), int(series.samples_S[at])),
                    *(layer, distance),
                )


def _trends(study: GroupStudy) -> Iterator[Row]:
    for fitted in study.trends:
        trend = fitted.trend
        yield (
            *(study.group, fitted.cohort, fitted.metric, trend.points, trend.intercept),
            *(trend.slope_start, trend.slope_end, trend.curvature, trend.curvature_stderr),
            *(trend.r_squared, trend.shape),
        )


def _thresholds(study: GroupStudy) -> Iterator[Row]:
    for one in study.thresholds:
        yield study.group, one.cohort, one.threshold, one.other_threshold, *_correlation(one)


def _entropy(study: GroupStudy) -> Iterator[Row]:
    for one in study.entropy:
        yield study.group, one.cohort, *_correlation(one)


def _correlation(agreement: ThresholdAgreement | EntropyAgreement) -> Row:
    found = agreement.correlation
    return (
        found.points,
        *(found.spearman.r, found.spearman.p_adjusted),
        *(found.pearson.r, found.pearson.p_adjusted),
    )


def _limits(study: GroupStudy) -> Iterator[Row]:
    for one in study.limits:
        yield (
            *(study.group, one.epsilon, one.delta, one.memorized_samples),
            *(one.median_step, one.spearman),
        )


def _limit_series(study: GroupStudy) -> Iterator[Row]:
    for one in study.limits:
        for step, distance in zip(study.limit_steps_P.tolist(), one.path_distance_P.tolist(), strict=True):
            if np.isfinite(distance):
                yield study.group, one.epsilon, one.delta, step, distance
