"""A table of correlations as JSON lines, and as rows of a tidy CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from pathwatch.server.analysis.correlation import Correlations, CorrelationTable, MetricCorrelation
from pathwatch.server.analysis.correlation_words import above_step, tracks, warnings
from pathwatch.server.analysis.pairing import Pairing

_COEFFICIENTS = ("pearson", "spearman", "partial_pearson", "partial_spearman")


def correlation_lines(table: CorrelationTable) -> Iterator[dict[str, object]]:
    """One line per group, scope and metric, then the means over groups, warnings and remarks."""
    for one in (*table.by_group, *table.pooled):
        for metric in one.metrics:
            yield {
                "type": "correlation",
                **_place(one, metric),
                **{
                    name: None if (value := getattr(metric, name)) is None else asdict(value)
                    for name in _COEFFICIENTS
                },
                **_judgement(metric),
            }
    for mean in table.means:
        yield {"type": "mean", **asdict(mean)}
    for text in warnings(table):
        yield {"type": "warning", "text": text}
    for text in table.remarks:
        yield {"type": "remark", "text": text}


def pairing_lines(pairing: Pairing) -> Iterator[dict[str, object]]:
    """One line per assigned pair."""
    for group, test in pairing.assigned.items():
        yield {
            "type": "pairing",
            "group": group,
            "test": test,
            "similarity": pairing.similarity(group, test),
        }


def write_csv(path: Path, table: CorrelationTable) -> None:
    """One row per group, scope and metric; the mean of the groups has an empty group."""
    rows = []
    for one in (*table.by_group, *table.pooled):
        for metric in one.metrics:
            row: dict[str, object] = _place(one, metric)
            for name in _COEFFICIENTS:
                value = getattr(metric, name)
                row[name] = None if value is None else value.r
                for part in ("p", "n_effective", "p_adjusted"):
                    row[f"{name}_{part}"] = None if value is None else getattr(value, part)
            rows.append(row | _judgement(metric))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _place(one: Correlations, metric: MetricCorrelation) -> dict[str, object]:
    return {
        "scope": one.scope,
        "group": one.group,
        "test": one.test or None,
        "first_step": one.first_step,
        "last_step": one.last_step,
        "interpolated": one.interpolated,
        "metric": metric.metric,
        "n": metric.n,
    }


def _judgement(metric: MetricCorrelation) -> dict[str, object]:
    """By which coefficients the metric exceeds the control (`both`, `Pearson`, `Spearman`, `no`), and whether
    both partial ones are still there."""
    return {
        "step_pearson": metric.step_pearson,
        "step_spearman": metric.step_spearman,
        "above_step": above_step(metric),
        "tracks": tracks(metric),
    }
