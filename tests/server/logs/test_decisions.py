"""Decisions of a real server over a recorded run, as its log tells them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from serving import COMMAND, CONFIG, serving, train, wait

from pathwatch.client import Client, RoutingStream

Told = tuple[list[dict[str, Any]], list[dict[str, Any]]]
TRACE = Path(__file__).parents[2] / "data/traces/text_deferred_bS_s2.npz"


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory,
) -> Told:
    """Lines that `replay` printed, and lines that the server logged in two lives."""
    folder = tmp_path_factory.mktemp("decisions")
    with serving(folder / "data", folder / "log") as server:
        command = [*COMMAND, "replay", TRACE, "--run", "text", "--json", "--server", server.address]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        stream = RoutingStream(server.address, run="open", config=CONFIG)
        train(stream, range(3))
        assert stream.flush(60)
        stream.close()
        with Client(server.address, timeout=60) as client:
            wait(lambda: client.get_run("open").closed_step == 2)
        server.stop()
    with serving(folder / "data", folder / "log") as server:
        server.stop()
    logged = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
    return [json.loads(line) for line in printed.splitlines()], logged


@pytest.mark.slow
def test_every_change_of_phase_has_one_line_with_its_evidence(
    told: Told,
) -> None:
    printed, logged = told
    expected, phases = [], {}
    for window in printed:
        if window["type"] == "window":
            before = phases.get(window["group"], "UNKNOWN")
            if before != window["phase"]:
                expected.append((window["step"], window["group"], before, window["phase"]))
            phases[window["group"]] = window["phase"]
    lines = [line for line in logged if line["event"] == "phase changed" and line["run"] == "text"]
    assert [(e["step"], e["group"], e["before"], e["after"]) for e in lines] == expected
    assert {after for _, _, _, after in expected} >= {"LEARNING", "OVERFITTING"}
    for line in lines:
        assert line["reason"]
        if line["after"] == "OVERFITTING":
            assert line["evidence"]
            assert all(isinstance(value, float) for value in line["evidence"].values())


@pytest.mark.slow
def test_every_change_of_action_has_one_line(told: Told) -> None:
    printed, logged = told
    said = [("CONTINUE", None)]
    for line in printed:
        if line["type"] == "signal" and said[-1] != (line["action"], line["stop_at_step"]):
            said.append((line["action"], line["stop_at_step"]))
    lines = [line for line in logged if line["event"] == "action changed"]
    assert [(line["after"], line.get("stop_at_step")) for line in lines] == said[1:]
    assert said[-1][0] == "STOP"
    assert all(line["reason"] for line in lines)
    chosen = [line for line in logged if line["event"] == "best checkpoint changed"]
    assert {line["group"] for line in chosen} == {""}, "groups' own are details"
    chosen = [line for line in chosen if line["run"] == "text"]
    assert chosen[-1]["after"] == printed[-1]["best_checkpoint_step"]


@pytest.mark.slow
def test_a_restart_says_where_runs_stand_and_nothing_twice(
    told: Told,
) -> None:
    _, logged = told
    decisions = [line for line in logged if line["event"].endswith(" changed")]
    said = [(line["revision"], line["event"], line.get("group")) for line in decisions]
    assert len(set(said)) == len(said)
    (standing,) = [line for line in logged if line["event"] == "run taken up again"]
    assert (standing["run"], standing["action"]) == ("open", "CONTINUE"), "the other is finished"
    assert set(standing["phases"]) == {"code", "math"}
