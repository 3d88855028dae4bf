"""Every problem of a configuration is found, at once, with its field."""

from __future__ import annotations

import re

import pytest

from pathwatch.server.config import Limits
from pathwatch.server.engine.run_config import (
    metric_settings,
    plugin_violations,
    sketch_settings,
    violations,
    with_defaults,
)
from pathwatch.v1 import run_pb2

GOOD = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4))
STREAM = run_pb2.OBSERVATION_MODE_STREAM


def group(name: str, epsilon: float = 0.0) -> run_pb2.GroupSettings:
    return run_pb2.GroupSettings(group=name, epsilon=epsilon)


def config(**changes: object) -> run_pb2.RunConfig:
    changed = run_pb2.RunConfig()
    changed.CopyFrom(GOOD)
    changed.MergeFrom(run_pb2.RunConfig(**changes))  # type: ignore[arg-type]
    return changed


def test_a_good_configuration_has_no_problems() -> None:
    assert violations("run-1_a.B", GOOD, Limits()) == []
    assert violations("run", with_defaults(GOOD), Limits()) == []
    assert violations("run", config(mode=STREAM, window_steps=100), Limits()) == []
    assert violations("run", config(policy="quorum", policy_options={"quorum": "0.5"}), Limits()) == []


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"topology": run_pb2.Topology(layers=300)}, "config.topology.layers", "1 to 256"),
        ({"topology": run_pb2.Topology(experts=5000)}, "config.topology.experts", "1 to 1024"),
        ({"mode": STREAM}, "config.window_steps", "required in stream mode"),
        ({"window_steps": 5}, "config.window_steps", "stream mode only"),
        ({"capacity": 10**6}, "config.capacity", "at most 8192"),
        ({"grace_seconds": -1.0}, "config.grace_seconds", "0 or more"),
        ({"delta": float("nan")}, "config.delta", "finite"),
        ({"ridge": float("inf")}, "config.ridge", "finite"),
        ({"thresholds": [0.7, 1.0]}, "config.thresholds[1]", "between 0 and 1"),
        ({"thresholds": [0.7, 0.7]}, "config.thresholds[1]", "twice"),
        ({"thresholds": [i / 10 for i in range(1, 10)]}, "config.thresholds", "at most 8"),
        ({"groups": [group("a"), group("")]}, "config.groups[1].group", "empty"),
        ({"groups": [group("a"), group("a")]}, "config.groups[1].group", "twice"),
        ({"groups": [group("a", -0.5)]}, "config.groups[0].epsilon", "auto"),
        ({"max_pairs": 2**20 + 1}, "config.max_pairs", "at most 1048576"),
        ({"detector": "nonesuch"}, "config.detector", "installed: .*pathway-drop"),
        ({"policy": "nonesuch"}, "config.policy", "installed: all-groups, .*quorum"),
        ({"policy": "quorum", "policy_options": {"quorum": "much"}}, "config.policy_options", "much"),
        ({"policy": "quorum", "policy_options": {"kworum": "1"}}, "config.policy_options", "kworum"),
        ({"metrics": ["nonesuch"]}, "config.metrics[0]", "nonesuch"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, object], field: str, words: str) -> None:
    wrong = config(**changes)
    (problem,) = [*violations("run", wrong, Limits()), *plugin_violations(wrong)]
    assert problem.field == field
    assert re.search(words, problem.message)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "x" * 129])
def test_names_are_plain(name: str) -> None:
    (problem,) = violations(name, GOOD, Limits())
    assert problem.field == "name"


def test_all_problems_at_once() -> None:
    bad = config(thresholds=[2.0, -1.0], detector="x", delta=-1.0)
    fields = [
        p.field.removeprefix("config.") for p in (*violations("a b", bad, Limits()), *plugin_violations(bad))
    ]
    assert fields == ["name", "delta", "thresholds[0]", "thresholds[1]", "detector"]


def test_defaults_are_those_of_the_protocol() -> None:
    full = with_defaults(GOOD)
    assert (full.mode, full.capacity, full.grace_seconds) == (run_pb2.OBSERVATION_MODE_PROBE, 512, 60.0)
    assert list(full.thresholds) == [0.7, 0.5, 0.6, 0.8]
    assert (full.delta, full.ridge, full.stop_margin_steps) == (0.05, 0.01, 1)
    assert (full.detector, full.policy) == ("pathway-drop", "all-groups")
    assert with_defaults(full) == full
    assert GOOD.capacity == 0


def test_settings_carry_the_configuration() -> None:
    full = with_defaults(config(mode=STREAM, window_steps=7, ridge=0.5, per_layer=True, thresholds=[0.9]))
    sketch, metrics = sketch_settings("run", full), metric_settings(full)
    assert (sketch.run, sketch.layers, sketch.experts, sketch.mode) == ("run", 2, 4, "stream")
    assert (sketch.window_steps, sketch.capacity, sketch.grace_seconds) == (7, 512, 60.0)
    assert (metrics.thresholds, metrics.ridge, metrics.per_layer) == ((0.9,), 0.5, True)


def test_all_pairs_are_compared_when_asked() -> None:
    assert metric_settings(with_defaults(GOOD)).max_pairs == 8192
    assert metric_settings(with_defaults(config(max_pairs=130_816))).max_pairs == 130_816
