"""Reads scores that the service never saw: a tidy CSV file, or a labels file (docs/correlate.md)."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pathwatch.server.analysis.scores import ScoreSeries, ScoresError
from pathwatch.server.report.labels import LabelsError, load_labels


def load_scores(path: Path, value: str = "score") -> Mapping[tuple[str, str], ScoreSeries]:
    """Scores by (group, test), "" where the file has no such column.

    A CSV file has the columns `step` and `value`, and may have `group` and `test`, in any order, one score a
    line; others are ignored. A file that ends in .npz is a labels file (`report.labels`). Raises ScoresError,
    for a CSV file with the number of the line.
    """
    try:
        if path.suffix == ".npz":
            return _label_scores(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _csv_scores(file, value)
    except (LabelsError, OSError) as error:
        raise ScoresError(str(error)) from None
    except UnicodeDecodeError:
        raise ScoresError(f"{path}: not a text file in UTF-8; wanted CSV, or a labels file (.npz)") from None
    except csv.Error as error:
        raise ScoresError(f"{path}: not readable as CSV: {error}") from None
    except ScoresError as error:
        raise ScoresError(f"{path}{error}") from None


def _label_scores(path: Path) -> dict[tuple[str, str], ScoreSeries]:
    labels = load_labels(path)
    found = {}
    for group, scores_T in zip(labels.groups, labels.scores_TG.T, strict=True):
        known_T = np.isfinite(scores_T)
        found[group, ""] = ScoreSeries(steps_S=labels.steps_T[known_T], scores_S=scores_T[known_T])
    return found


def _csv_scores(lines: Iterator[str], value: str) -> dict[tuple[str, str], ScoreSeries]:
    """Errors begin where the file's name ends."""
    rows = csv.DictReader(lines, skipinitialspace=True, strict=True)
    columns = rows.fieldnames or ()
    for wanted in ("step", value):
        if columns.count(wanted) != 1:
            raise ScoresError(f", line 1: wanted one column `{wanted}`; the header is {_shown(columns)}")
    by_key: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        where = f", line {rows.line_num}"
        if None in row or None in row.values():
            raise ScoresError(f"{where}: not as many cells as the header has columns ({len(columns)})")
        for column in {"group", "test"} & set(columns):
            if not row[column]:
                raise ScoresError(f"{where}: no {column}")
        step, score = _step(row["step"], where), _score(row[value], value, where)
        scores = by_key.setdefault((row.get("group", ""), row.get("test", "")), {})
        if step in scores:
            raise ScoresError(f"{where}: a second {value} for step {step} of the same group and test")
        scores[step] = score
    if not by_key:
        raise ScoresError(": no scores below the header")
    return {key: _series(scores) for key, scores in by_key.items()}


def _step(cell: str, where: str) -> int:
    try:
        step = int(cell)
    except ValueError:
        raise ScoresError(f"{where}: step {cell!r} is not a whole number") from None
    if not 0 <= step < 2**63:
        raise ScoresError(f"{where}: step {cell} is not a training step; wanted 0 or more")
    return step


def _score(cell: str, value: str, where: str) -> float:
    try:
        score = float(cell)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise ScoresError(
            f"{where}: {value} {cell!r} is not a finite number; leave out lines without a measurement"
        )
    return score


def _series(scores: Mapping[int, float]) -> ScoreSeries:
    steps = sorted(scores)
    return ScoreSeries(
        steps_S=np.array(steps, dtype=np.int64), scores_S=np.array([scores[step] for step in steps])
    )


def _shown(columns: Sequence[str]) -> str:
    """A header in one line, whatever it holds."""
    return " ".join(",".join(columns).split()) or "empty"
