"""`replay`: a recorded trace gives what the live service would have said, the same every time."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from pathwatch.client import Client
from pathwatch.client.uplink import Uplink
from pathwatch.server.cli.lines import signal_line, window_line
from pathwatch.server.cli.playback import Batch, ReplayError, replay, step_batches
from pathwatch.server.traces import Trace, load_trace

TRACES = Path(__file__).parents[2] / "data" / "traces"
PHASES = {"UNKNOWN", "LEARNING", "MEMORIZED", "GENERALIZING", "GENERALIZED", "OVERFITTING", "REGRESSING"}


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def told(trace: Trace, address: str, run: str, **options: Any) -> list[dict[str, object]]:
    """Everything a replay through the library says."""
    said: list[dict[str, object]] = []
    for step in replay(trace, address=address, run=run, **options):
        said += [window_line("", window) for window in step.windows]
        said += [signal_line(signal) for signal in step.signals]
    return said


def chosen(batch: Batch, indices: Sequence[int]) -> Batch:
    """Some samples of a batch, in the given order."""
    arrays = {
        item.name: getattr(batch, item.name)[list(indices)]
        for item in fields(Batch)
        if item.name != "group" and getattr(batch, item.name) is not None
    }
    return replace(batch, **arrays)


def disordered(seed: int) -> Callable[[Trace, int], list[Batch]]:
    """The same observations: split, some of them twice, all shuffled."""

    def batches(trace: Trace, index: int) -> list[Batch]:
        random = np.random.default_rng([seed, index])
        parts = []
        for batch in step_batches(trace, index):
            order = random.permutation(len(batch.sample_ids_N))
            cuts = sorted(random.integers(0, len(order) + 1, size=2))
            parts += [chosen(batch, part) for part in np.split(order, cuts) if len(part)]
            parts.append(chosen(batch, random.permutation(len(order))[: 1 + len(order) // 3]))
        return [parts[at] for at in random.permutation(len(parts))]

    return batches


def test_the_lines_are_as_promised(command: Callable[..., Result], trace_file: Callable[..., Path]) -> None:
    path = trace_file("my trace", steps=5)
    output = lines(command("replay", path, "--json"))
    windows = [line for line in output if line["type"] == "window"]
    signals = [line for line in output if line["type"] == "signal"]
    summary = output[-1]
    assert len(windows) + len(signals) + 1 == len(output)

    assert [(line["step"], line["group"]) for line in windows] == [
        (step, group) for step in (0, 25, 50, 75, 100) for group in ("code", "math")
    ]
    for line in windows:
        assert set(line) == {"type", "run", "group", "step", "phase", "metrics"}
        assert line["run"] == "replay-my-trace"
        assert line["phase"] in PHASES
        assert {"path_distance", "effective_dimension", "routing_entropy", "train_loss"} <= line[
            "metrics"
        ].keys()
        assert all(isinstance(value, float) and math.isfinite(value) for value in line["metrics"].values())

    keys = {"step", "action", "stop_at_step", "reason", "best_checkpoint_step", "best_checkpoint_by_group"}
    for line in signals:
        assert set(line) == {"type", *keys}
        assert line["action"] in {"CONTINUE", "CHECKPOINT", "STOP"}
    assert signals[-1]["best_checkpoint_step"] in {0, 25, 50, 75, 100}
    changed = [
        {name: line[name] for name in keys - {"step"}} | phases_at(windows, line["step"]) for line in signals
    ]
    assert all(one != other for one, other in pairwise(changed))

    assert summary["type"] == "summary"
    assert summary["signal"] == {name: signals[-1][name] for name in keys}
    assert summary["best_checkpoint_step"] == signals[-1]["best_checkpoint_step"]
    assert summary["best_checkpoint_by_group"] == signals[-1]["best_checkpoint_by_group"]
    for group, history in summary["phase_history"].items():
        assert history == changes_of_phase(line for line in windows if line["group"] == group)


def phases_at(windows: list[dict[str, Any]], step: int) -> dict[str, str]:
    return {line["group"]: line["phase"] for line in windows if line["step"] == step}


def changes_of_phase(windows: Any) -> list[dict[str, Any]]:
    changes: list[dict[str, Any]] = []
    for line in windows:
        if not changes or changes[-1]["phase"] != line["phase"]:
            changes.append({"phase": line["phase"], "step": line["step"]})
    return changes


def test_the_numbers_are_those_of_the_trace(
    command: Callable[..., Result], trace_file: Callable[..., Path]
) -> None:
    path = trace_file(steps=3)
    trace = load_trace(path)
    for line in lines(command("replay", path, "--json")):
        if line["type"] == "window":
            at = trace.steps_T.tolist().index(line["step"]), trace.groups.index(line["group"])
            weights = trace.weights_TGNLK[at].astype(np.float64)
            weights /= weights.sum(axis=-1, keepdims=True)
            entropy = -np.sum(weights * np.log(np.maximum(weights, 1e-300)), axis=-1).mean()
            assert line["metrics"]["routing_entropy"] == pytest.approx(entropy, rel=1e-3)
            assert line["metrics"]["window_samples"] == trace.samples
            seen = trace.losses_TGN[at][trace.visits_TGN[at] > 0]  # type: ignore[index]
            if len(seen):
                assert line["metrics"]["train_loss"] == pytest.approx(seen.mean())


def test_a_table_for_people(command: Callable[..., Result], trace_file: Callable[..., Path]) -> None:
    result = command("replay", trace_file(steps=3))
    assert result.exit_code == 0
    assert all(word in result.stdout for word in ("group", "code", "math", "history"))


@pytest.mark.slow
def test_through_a_server_that_runs_already(
    command: Callable[..., Result], trace_file: Callable[..., Path], server: Any
) -> None:
    path = trace_file("shared", steps=4)
    first = command("replay", path, "--json", "--server", server.grpc_address)
    again = command("replay", path, "--json", "--server", server.grpc_address)
    assert lines(first) == lines(again) == lines(command("replay", path, "--json"))
    listed = lines(command("runs", "--json", "--server", server.grpc_address))
    mine = [line for line in listed if line["run"] == "replay-shared"]
    assert [(line["state"], line["closed_step"]) for line in mine] == [("FINISHED", 75)]


def test_a_named_run_is_never_replaced(
    command: Callable[..., Result], trace_file: Callable[..., Path], server: Any
) -> None:
    path = trace_file(steps=2)
    arguments = ("replay", path, "--run", "precious", "--server", server.grpc_address)
    assert command(*arguments).exit_code == 0
    again = command(*arguments)
    assert again.exit_code == 2
    assert again.stderr.count("\n") == 1
    assert "'precious' exists already, up to step 25" in again.stderr
    with Client(server.grpc_address) as client:
        assert client.get_run("precious").closed_step == 25


def test_samples_without_a_loss_are_sent_without_one(
    command: Callable[..., Result], trace_file: Callable[..., Path]
) -> None:
    losses = np.full((2, 2, 24), 2.0, np.float32)
    losses[1, 0, ::2] = np.nan
    losses[1, 0, 1::2] = np.arange(12)
    losses[1, 1] = np.inf
    path = trace_file(steps=2, losses=losses, visits=np.ones((2, 2, 24), np.int32))
    windows = {
        (line["group"], line["step"]): line["metrics"]
        for line in lines(command("replay", path, "--json"))
        if line["type"] == "window"
    }
    assert windows["code", 25]["train_loss"] == pytest.approx(5.5)
    assert "train_loss" not in windows["math", 25]
    assert {metrics["window_samples"] for metrics in windows.values()} == {24.0}


@pytest.mark.slow
def test_what_the_server_refuses_is_said(
    trace_file: Callable[..., Path], server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = load_trace(trace_file(steps=2))

    def broken(trace: Trace, index: int) -> list[Batch]:
        return [replace(batch, losses_N=-np.ones(24, np.float32)) for batch in step_batches(trace, index)]

    with pytest.raises(ReplayError, match=r"refused part of step 0 .*loss"):
        list(replay(trace, address=server.grpc_address, run="broken", batches=broken))

    def late(*arguments: Any) -> None:
        time.sleep(0.5)
        say(*arguments)

    say = Uplink._say_rejected
    monkeypatch.setattr(Uplink, "_say_rejected", late)  # after it was counted
    with pytest.raises(ReplayError, match=r"refused part of step 0 .*loss"):
        list(replay(trace, address=server.grpc_address, run="broken-again", batches=broken))


@pytest.mark.slow
def test_order_and_repetition_change_nothing(trace_file: Callable[..., Path], server: Any) -> None:
    trace = load_trace(trace_file(steps=6))
    plain = told(trace, server.grpc_address, "in-order")
    for seed in (1, 2):
        assert told(trace, server.grpc_address, f"disordered-{seed}", batches=disordered(seed)) == plain


@pytest.mark.slow
def test_no_step_uses_what_comes_after_it(
    command: Callable[..., Result], trace_file: Callable[..., Path]
) -> None:
    whole = command("replay", trace_file("whole", steps=8), "--json")
    content = dict(np.load(trace_file("whole", steps=8)))
    by_step = ("losses", "weights", "visits", "gram_self", "gram_next")
    first = {name: content[name][:5] for name in by_step}
    half = command("replay", trace_file("whole", steps=5, targets=content["targets"], **first), "--json")
    assert lines(half)[:-1] == [line for line in lines(whole)[:-1] if line["step"] <= 100]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "ol_pair_s0",
        "neg_rnd_s0",
        "text_c_s0",
        pytest.param("pair_s1", marks=pytest.mark.robustness),
        pytest.param("text_deferred_bS_s2", marks=pytest.mark.robustness),
    ],
)
def test_recorded_runs(command: Callable[..., Result], server: Any, name: str) -> None:
    """Every window of a real run is judged, and disorder within a step changes nothing."""
    trace = load_trace(TRACES / f"{name}.npz")
    output = lines(command("replay", TRACES / f"{name}.npz", "--json"))
    windows = [line for line in output if line["type"] == "window"]
    assert len(windows) == len(trace.steps_T) * len(trace.groups)
    assert output[-1]["phase_history"].keys() == set(trace.groups)
    assert output[-1]["best_checkpoint_by_group"].keys() <= set(trace.groups)
    plain = [{**line, "run": ""} if line["type"] == "window" else line for line in output[:-1]]
    assert told(trace, server.grpc_address, f"disordered-{name}", batches=disordered(3)) == plain
