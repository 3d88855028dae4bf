"""`pathwatch bound`: table, JSON lines, CSV and picture of a recorded run."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

Command = Callable[..., Result]
TraceFile = Callable[..., Path]


def test_json_lines(command: Command, trace_file: TraceFile) -> None:
    result = command("bound", trace_file(steps=6), "--json", "--noise", "3", "--every", "2")
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in result.stdout.splitlines()]
    series = [record for record in records if record["type"] == "bound"]
    assert len(series) == 2 * 4 * 5
    assert sorted({record["step"] for record in series}) == [0, 50, 100, 125]
    for record in series:
        assert (record["run"], record["samples"], record["noise"]) == ("small", 24, 3)
        assert record["variance_term"] == pytest.approx(3 * record["effective_dimension"] / 24)
    agreements = [record for record in records if record["type"] == "ridge_agreement"]
    assert [(record["group"], record["ridge"]) for record in agreements] == [
        (group, ridge) for group in ("code", "math") for ridge in (1e-4, 1e-3, 1e-2, 0.1, 1)
    ]
    assert all(record["spearman"] == pytest.approx(1) for record in agreements if record["ridge"] == 0.01)


def test_chosen_groups_and_ridges(command: Command, trace_file: TraceFile) -> None:
    result = command(
        "bound", trace_file(), "--json", "--group", "math", "--ridge", "0.5", "--ridge", "0.0371"
    )
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert {record["group"] for record in records} == {"math"}
    assert {record["ridge"] for record in records} == {0.01, 0.0371, 0.5}


def test_table(command: Command, trace_file: TraceFile) -> None:
    result = command("bound", trace_file(), "--group", "code", COLUMNS="100")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [words[1 if words[0] == "code" else 0] for words in lines[1:6]] == [
        *["0.0001", "0.001", "0.01", "0.1", "1"]
    ]


def test_undefined_agreement_is_null_and_a_dash(command: Command, trace_file: TraceFile) -> None:
    still = trace_file(weights=np.full((6, 2, 24, 2, 4), 0.25, np.float32))
    records = [json.loads(line) for line in command("bound", still, "--json").stdout.splitlines()]
    assert {record["spearman"] for record in records if record["type"] == "ridge_agreement"} == {None}
    assert "–" in command("bound", still, COLUMNS="100").stdout


@pytest.mark.slow
def test_files(command: Command, trace_file: TraceFile, tmp_path: Path) -> None:
    table, folder = tmp_path / "mine.csv", tmp_path / "new" / "out"
    result = command("bound", trace_file(), "--csv", table, "--out", folder)
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 6 * 2 * 5
    assert float(rows[0]["variance_term"]) == pytest.approx(float(rows[0]["effective_dimension"]) / 24)
    assert (folder / "bound.csv").read_text() == table.read_text()
    assert (folder / "bound.png").read_bytes().startswith(b"\x89PNG")


def test_errors_are_one_line(command: Command, trace_file: TraceFile, tmp_path: Path) -> None:
    unknown = command("bound", trace_file(), "--group", "cod")
    assert (unknown.exit_code, unknown.stderr) == (
        2,
        "pathwatch: small has no group cod; it has code, math\n",
    )
    assert "--ridge" in command("bound", trace_file(), "--ridge", "0").stderr
    unwritable = command("bound", trace_file(), "--csv", tmp_path / "missing" / "x.csv")
    assert unwritable.exit_code == 2
    assert "missing" in unwritable.stderr
    assert len(unwritable.stderr.splitlines()) == 1
