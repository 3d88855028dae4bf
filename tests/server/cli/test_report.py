"""`pathwatch report` of a recorded run, and of runs whose observations a server did or did not keep."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

pytestmark = pytest.mark.slow  # Draws many pictures.


def headings(result: Result) -> list[str]:
    """Headings of the page that the command wrote."""
    assert result.exit_code == 0, result.output
    page, picture = map(Path, result.stdout.split())
    assert picture.read_bytes().startswith(b"\x89PNG")
    return re.findall(r"<h2>(.*?)</h2>", page.read_text())


def text(result: Result) -> str:
    return Path(result.stdout.split()[0]).read_text()


COHORTS = "Cohorts: what became of the memorized samples"
BOUND = "The bound: effective dimension and variance term"
CORRELATIONS = "Do the metrics follow the scores?"


@pytest.fixture
def labels_file(tmp_path: Path) -> Callable[..., Path]:
    """Accuracies of the group `math` at the steps of a small trace, rising."""

    def write(steps: int) -> Path:
        path = tmp_path / "labels.npz"
        accuracy = np.linspace(0.1, 0.9, steps, dtype=np.float32) ** 2
        np.savez(path, steps=25 * np.arange(steps), groups=np.array(["math"]), test_acc=accuracy[:, None])
        return path

    return write


def test_a_recorded_run_is_played_and_analysed(
    command: Callable[..., Result],
    trace_file: Callable[..., Path],
    labels_file: Callable[..., Path],
    tmp_path: Path,
) -> None:
    trace = trace_file("run 1", steps=6)
    result = command("report", trace, "--out", tmp_path / "out", "--labels", labels_file(6))
    shown = headings(result)
    assert [shown.index(name) for name in (CORRELATIONS, COHORTS, BOUND)] == sorted(
        shown.index(name) for name in (CORRELATIONS, COHORTS, BOUND)
    )
    assert "Not shown" not in shown
    page = text(result)
    assert "<h1>run-1</h1>" in page
    assert "steps 0 to 125" in page
    assert "finished" in page
    assert page.count('src="data:image/svg+xml') == 1 + 1 + 5 + 1


def test_a_run_without_its_observations_says_what_is_missing(
    command: Callable[..., Result],
    trace_file: Callable[..., Path],
    labels_file: Callable[..., Path],
    server: Any,
    tmp_path: Path,
) -> None:
    run = ("forgotten", "--server", server.grpc_address)
    assert command("replay", trace_file(steps=6), "--run", *run).exit_code == 0
    result = command("report", *run, "--out", tmp_path / "out", "--labels", labels_file(6))
    shown = headings(result)
    assert CORRELATIONS in shown
    assert not {COHORTS, BOUND} & set(shown)
    assert "Create the run with keep_observations" in text(result)


def test_a_run_with_its_observations_is_analysed(
    command: Callable[..., Result], trace_file: Callable[..., Path], server: Any, tmp_path: Path
) -> None:
    run = ("remembered", "--server", server.grpc_address)
    assert command("replay", trace_file(steps=4), "--run", *run, "--keep-observations").exit_code == 0
    shown = headings(command("report", *run, "--out", tmp_path / "out"))
    assert {COHORTS, BOUND} < set(shown)
    assert not {CORRELATIONS, "Not shown"} & set(shown)


def test_labels_too_few_to_correlate_still_judge(
    command: Callable[..., Result],
    trace_file: Callable[..., Path],
    labels_file: Callable[..., Path],
    tmp_path: Path,
) -> None:
    result = command("report", trace_file(steps=3), "--out", tmp_path, "--labels", labels_file(3))
    shown = headings(result)
    assert "Judged afterwards" in shown
    assert CORRELATIONS not in shown
    assert "Not shown" in shown
    assert "Correlations with the labels" in text(result)


def test_scores_that_do_not_fit_are_refused(
    command: Callable[..., Result], trace_file: Callable[..., Path], tmp_path: Path
) -> None:
    scores = tmp_path / "scores.csv"
    scores.write_text("step,score\n0,0.1\n25,high\n")
    result = command("report", trace_file(steps=2), "--out", tmp_path / "out", "--scores", scores)
    assert result.exit_code == 2
    assert f"{scores}, line 3" in result.stderr
    assert not (tmp_path / "out").exists()
