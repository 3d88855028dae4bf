"""`pathwatch cohorts`: tables, JSON lines and files say the same."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

TRACES = Path(__file__).parents[2] / "data" / "traces"
KINDS = ["cohorts", "memorized", "metrics", "trends", "thresholds", "limits", "entropy"]


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_json_lines_name_every_kind_of_every_group(
    command: Callable[..., Result], trace_file: Callable[..., Path]
) -> None:
    told = lines(command("cohorts", trace_file(steps=8), "--json"))
    for group in ("code", "math"):
        kinds = [line["type"] for line in told if line["group"] == group]
        assert list(dict.fromkeys(kinds)) == KINDS
    assert {line["run"] for line in told} == {"small"}
    by_kind = {line["type"]: line.keys() - {"type", "run", "group"} for line in told}
    assert by_kind == {
        "cohorts": {
            *("epsilon", "delta", "samples", "memorized_samples", "memorized_steps", "cohorts"),
        },
        "memorized": {"steps", "new", "cumulative"},
        "metrics": {"cohort", "steps", "samples", "metrics", "layer_path_distance"},
        "trends": {"trends"},
        "thresholds": {"agreements"},
        "limits": {"steps", "limits"},
        "entropy": {"agreements"},
    }


def test_cohorts_hold_the_memorized_samples(
    command: Callable[..., Result], trace_file: Callable[..., Path]
) -> None:
    told = lines(command("cohorts", trace_file(), "--epsilon", 0.6, "--delta", 1, "--cohorts", 2, "--json"))
    for group in (line for line in told if line["type"] == "cohorts"):
        assert (group["epsilon"], group["delta"], group["samples"]) == (0.6, 1.0, 24)
        assert len(group["cohorts"]) <= 2
        held = sorted(sample for cohort in group["cohorts"] for sample in cohort["samples"])
        assert held == [sample for sample, step in enumerate(group["memorized_steps"]) if step >= 0]
        assert len(held) == group["memorized_samples"] > 0
        names = [cohort["name"] for cohort in group["cohorts"]]
        series = [line for line in told if line["type"] == "metrics" and line["group"] == group["group"]]
        assert [line["cohort"] for line in series if line["cohort"].startswith("t*")] == [
            name for name, cohort in zip(names, group["cohorts"], strict=True) if len(cohort["samples"]) > 1
        ]
        for line in series:
            for cohort in group["cohorts"]:
                if line["cohort"] == cohort["name"]:
                    assert line["steps"][0] == cohort["last_step"]
                    assert set(line["samples"]) == {len(cohort["samples"])}


def test_one_group_and_fewer_points(command: Callable[..., Result], trace_file: Callable[..., Path]) -> None:
    told = lines(command("cohorts", trace_file(steps=8), "--group", "math", "--every", 3, "--json"))
    assert {line["group"] for line in told} == {"math"}
    whole = next(line for line in told if line.get("cohort") == "all")
    assert whole["steps"] == [0, 75, 150, 175]
    assert "path_distance_ratio" in whole["metrics"]
    counts = next(line for line in told if line["type"] == "memorized")
    assert len(counts["steps"]) == 8


def test_metrics_of_all_samples_are_those_of_replay(
    command: Callable[..., Result], trace_file: Callable[..., Path]
) -> None:
    trace = trace_file(steps=3)
    told = lines(command("cohorts", trace, "--json"))
    live = [line for line in lines(command("replay", trace, "--json")) if line["type"] == "window"]
    for line in told:
        if line.get("cohort") == "all":
            by_step = [window["metrics"] for window in live if window["group"] == line["group"]]
            for name, values in line["metrics"].items():
                assert values == [pytest.approx(metrics.get(name)) for metrics in by_step]


@pytest.mark.slow
def test_a_run_that_a_server_kept_says_what_its_trace_says(
    command: Callable[..., Result], trace_file: Callable[..., Path], server: Any
) -> None:
    trace, address = trace_file("kept"), ("--server", server.grpc_address)
    assert command("replay", trace, "--run", "kept", *address, "--keep-observations").exit_code == 0
    assert lines(command("cohorts", "kept", *address, "--json")) == lines(command("cohorts", trace, "--json"))


def test_a_run_that_was_not_kept_is_refused(
    command: Callable[..., Result], trace_file: Callable[..., Path], server: Any
) -> None:
    run = ("not-kept", "--server", server.grpc_address)
    assert command("replay", trace_file(), "--run", *run).exit_code == 0
    result = command("cohorts", *run)
    assert result.exit_code == 2
    assert "keep_observations" in result.stderr


@pytest.mark.slow
def test_a_single_point_of_a_single_group_can_be_drawn(
    command: Callable[..., Result], trace_file: Callable[..., Path], tmp_path: Path
) -> None:
    random = np.random.default_rng(3)
    trace = trace_file(
        steps=1,
        groups=np.array(["only"]),
        losses=random.uniform(0, 1, (1, 1, 5)).astype(np.float32),
        weights=random.dirichlet(np.ones(4), (1, 1, 5, 1)).astype(np.float32),
        targets=np.zeros((1, 5), dtype=np.int32),
        visits=np.ones((1, 1, 5), dtype=np.int32),
        gram_self=np.ones((1, 1, 4, 4), dtype=np.float32),
        gram_next=np.ones((1, 0, 4, 4), dtype=np.float32),
    )
    result = command("cohorts", trace, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "out").glob("*.png"))) == 5


@pytest.mark.slow
def test_files_hold_what_the_lines_say(command: Callable[..., Result], tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = lines(command("cohorts", TRACES / "ol_pair_s0.npz", "--every", 5, "--out", out, "--json"))
    assert {path.name for path in out.iterdir()} == {
        *("samples.csv", "memorized.csv", "metrics.csv", "layers.csv", "trends.csv", "thresholds.csv"),
        *("limits.csv", "limit_series.csv", "entropy.csv"),
        *("memorized.png", "trends.png", "layers.png", "controls.png", "entropy.png"),
    }
    for picture in out.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    of_kind = {kind: [line for line in told if line["type"] == kind] for kind in KINDS}

    samples = rows(out / "samples.csv")
    assert [int(row["memorized_step"] or -1) for row in samples] == [
        step for line in of_kind["cohorts"] for step in line["memorized_steps"]
    ]
    cohort_of = {
        (line["group"], sample): cohort["name"]
        for line in of_kind["cohorts"]
        for cohort in line["cohorts"]
        for sample in cohort["samples"]
    }
    assert {
        (row["group"], int(row["sample"])): row["cohort"] for row in samples if row["cohort"]
    } == cohort_of

    counts = [
        (row["group"], int(row["step"]), int(row["new"]), int(row["cumulative"]))
        for row in rows(out / "memorized.csv")
    ]
    assert counts == [
        (line["group"], *values)
        for line in of_kind["memorized"]
        for values in zip(line["steps"], line["new"], line["cumulative"], strict=True)
    ]

    metrics = {
        (row["group"], row["cohort"], int(row["step"]), row["metric"]): (
            int(row["samples"]),
            float(row["value"]),
        )
        for row in rows(out / "metrics.csv")
    }
    assert metrics == {
        (line["group"], line["cohort"], step, name): (samples, value)
        for line in of_kind["metrics"]
        for name, values in line["metrics"].items()
        for step, samples, value in zip(line["steps"], line["samples"], values, strict=True)
        if value is not None
    }

    layers = {
        (row["group"], row["cohort"], int(row["step"]), int(row["layer"])): float(row["path_distance"])
        for row in rows(out / "layers.csv")
    }
    assert layers == {
        (line["group"], line["cohort"], step, layer): distance
        for line in of_kind["metrics"]
        for step, distances in zip(line["steps"], line["layer_path_distance"], strict=True)
        for layer, distance in enumerate(distances)
    }

    trends = {(row["group"], row["cohort"], row["metric"]): row for row in rows(out / "trends.csv")}
    expected = {
        (line["group"], one["cohort"], one["metric"]): one["trend"]
        for line in of_kind["trends"]
        for one in line["trends"]
    }
    assert trends.keys() == expected.keys()
    for key, trend in expected.items():
        assert trends[key]["shape"] == trend["shape"]
        for name in ("intercept", "slope_start", "slope_end", "curvature", "curvature_stderr", "r_squared"):
            assert float(trends[key][name]) == trend[name]

    for kind in ("thresholds", "entropy"):
        found = [
            (row["group"], row["cohort"], float(row["spearman"]), float(row["pearson"]), int(row["points"]))
            for row in rows(out / f"{kind}.csv")
        ]
        assert found == [
            (line["group"], one["cohort"], told["spearman"]["r"], told["pearson"]["r"], told["points"])
            for line in of_kind[kind]
            for one in line["agreements"]
            for told in [one["correlation"]]
        ]

    limits = {(row["group"], row["epsilon"], row["delta"]): row for row in rows(out / "limits.csv")}
    series = rows(out / "limit_series.csv")
    for line in of_kind["limits"]:
        for one in line["limits"]:
            key = line["group"], str(one["epsilon"]), str(one["delta"])
            assert int(limits[key]["memorized_samples"]) == one["memorized_samples"]
            own = {
                int(row["step"]): float(row["path_distance"])
                for row in series
                if (row["group"], row["epsilon"], row["delta"]) == key
            }
            drawn = zip(line["steps"], one["path_distance"], strict=True)
            assert own == {step: distance for step, distance in drawn if distance is not None}


@pytest.mark.slow
def test_tables_for_people(command: Callable[..., Result], trace_file: Callable[..., Path]) -> None:
    result = command("cohorts", trace_file(steps=8), "--epsilon", 0.6, "--delta", 1, COLUMNS="120")
    assert result.exit_code == 0, result.output
    assert "Memorized samples at the end of the run" in result.stdout
    words = [line.split() for line in result.stdout.splitlines()]
    header = words.index(
        ["group", "ε", "δ", "samples", "memorized", "first", "t*", "median", "t*", "last", "t*"]
    )
    assert words[header + 1][:4] == ["code", "0.6", "1", "24"]
    assert ["math", "all", "24", "8"] in [line[:4] for line in words]


def test_nothing_memorized(command: Callable[..., Result], trace_file: Callable[..., Path]) -> None:
    result = command("cohorts", trace_file(), "--epsilon", 0, COLUMNS="120")
    assert result.exit_code == 0, result.output
    assert "t*=" not in result.stdout


def test_losses_that_never_came(command: Callable[..., Result], trace_file: Callable[..., Path]) -> None:
    trace = trace_file(losses=np.full((6, 2, 24), np.nan, dtype=np.float32))
    told = lines(command("cohorts", trace, "--json"))
    assert [line["epsilon"] for line in told if line["type"] == "cohorts"] == [None, None]
    assert {line["cohort"] for line in told if line["type"] == "metrics"} == {"all"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--group", "law"), "no group 'law' in small; it has code, math"),
        (("--epsilon", "low"), "'low' is neither a number of nats from 0 up nor `auto`"),
        (("--epsilon", "nan"), "'nan' is neither a number of nats from 0 up nor `auto`"),
        (("--cohorts", "0"), "0 is not in the range x>=1"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    command: Callable[..., Result], trace_file: Callable[..., Path], arguments: tuple[str, ...], said: str
) -> None:
    result = command("cohorts", trace_file(), *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
