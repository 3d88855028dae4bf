"""Every series of runs made by hand, when they come, and when they go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from run_views import START, Group, ShownEngine, health, run_view

from pathwatch.server.exporter.exposition import exposition
from pathwatch.server.exporter.state_collector import StateCollector
from pathwatch.server.phases.verdict import Action, Phase
from pathwatch.v1 import run_pb2

HOUR = 3600.0


def collector(engine: Any, *, series_groups: int = 32) -> StateCollector:
    return StateCollector(engine, series_groups=series_groups, finished_series_seconds=HOUR)


def series(of: StateCollector) -> dict[str, float]:
    """All that a scrape says: name and labels → value."""
    found = {}
    for family in text_string_to_metric_families(exposition(of, "")[1].decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
            key = f"{sample.name.removeprefix('pathwatch_')}{{{labels}}}"
            assert key not in found
            found[key] = sample.value
    return found


def runs(of: StateCollector) -> set[str]:
    """Names of the runs that have series."""
    families = text_string_to_metric_families(exposition(of, "")[1].decode())
    return {sample.labels["run"] for family in families for sample in family.samples}


def phases(run: str, group: str, current: str) -> dict[str, float]:
    return {f"group_phase{{run={run},group={group},phase={p.name}}}": p.name == current for p in Phase}


def actions(run: str, current: str) -> dict[str, float]:
    return {
        f"run_action{{run={run},action={action}}}": action == current
        for action in ("CONTINUE", "CHECKPOINT", "STOP")
    }


def test_every_series_of_a_run() -> None:
    view = run_view(
        "r",
        [
            Group(
                name="math",
                metrics={"path_distance": 3.25, "window_samples": 64.0, "my_metric": -1e-7},
                layers=(1.5, 2.0),
                phase=Phase.GENERALIZED,
                since_step=30,
                best=25,
                changes=4,
            ),
            Group(name="code", metrics={"path_distance": 1e20}, step=20, partial=True, phase=Phase.LEARNING),
            Group(name="new", step=None, phase=None),
        ],
        action=Action.STOP,
        stop_at_step=60,
        best=25,
        run={
            "config": run_pb2.RunConfig(
                topology=run_pb2.Topology(layers=16, experts=64),
                mode=run_pb2.OBSERVATION_MODE_STREAM,
                policy="quorum",
            ),
            "step": 50,
            "closed_step": 40,
            "attempt": 2,
            "world_size": 8,
        },
        health=health(
            observations={"accepted": 100, "late": 3, "dropped": 7},
            connected_ranks=6,
            missing_ranks=(3, 5),
            partial_rounds=9,
            unjudged_rounds=1,
        ),
        checkpoints=11,
    )
    assert series(collector(ShownEngine(view, now=START + 12.5))) == {
        "run_info{run=r,mode=stream,layers=16,experts=64,policy=quorum}": 1,
        **actions("r", "STOP"),
        "run_step{run=r}": 50,
        "run_closed_step{run=r}": 40,
        "run_attempt{run=r}": 2,
        "run_active{run=r}": 1,
        "run_stale{run=r}": 0,
        "run_stop_at_step{run=r}": 60,
        "state_age_seconds{run=r}": 12.5,
        "best_checkpoint_step{run=r,group=}": 25,
        "expected_ranks{run=r}": 8,
        "connected_ranks{run=r}": 6,
        "missing_ranks{run=r}": 2,
        "partial_rounds_total{run=r}": 9,
        "unjudged_rounds{run=r}": 1,
        "ingest_observations_total{run=r,result=accepted}": 100,
        "ingest_observations_total{run=r,result=late}": 3,
        "ingest_observations_total{run=r,result=dropped}": 7,
        "checkpoints{run=r}": 11,
        "other_groups{run=r}": 0,
        "path_distance{run=r,group=math}": 3.25,
        "window_samples{run=r,group=math}": 64,
        "my_metric{run=r,group=math}": -1e-7,
        "layer_path_distance{run=r,group=math,layer=0}": 1.5,
        "layer_path_distance{run=r,group=math,layer=1}": 2,
        "window_step{run=r,group=math}": 40,
        "window_partial{run=r,group=math}": 0,
        **phases("r", "math", "GENERALIZED"),
        "group_phase_since_step{run=r,group=math}": 30,
        "best_checkpoint_step{run=r,group=math}": 25,
        "phase_changes_total{run=r,group=math}": 4,
        "path_distance{run=r,group=code}": 1e20,
        "window_step{run=r,group=code}": 20,
        "window_partial{run=r,group=code}": 1,
        **phases("r", "code", "LEARNING"),
        "group_phase_since_step{run=r,group=code}": 10,
        "phase_changes_total{run=r,group=code}": 0,
    }


def test_a_run_in_probe_mode_that_trains_on() -> None:
    found = series(collector(ShownEngine(run_view("r", action=Action.CHECKPOINT))))
    assert found["run_info{run=r,mode=probe,layers=3,experts=4,policy=all-groups}"] == 1
    assert actions("r", "CHECKPOINT").items() <= found.items()
    assert not any(name.startswith(("run_stop_at_step", "best_checkpoint_step")) for name in found)


def test_a_silent_run_is_stale_and_its_groups_unknown() -> None:
    engine = ShownEngine(run_view("r", [Group(name="math", phase=Phase.MEMORIZED)], action=Action.CHECKPOINT))
    of = collector(engine)
    assert phases("r", "math", "MEMORIZED").items() <= series(of).items()
    engine.time += 60.5  # the run's patience is a minute
    found = series(of)
    assert found["run_stale{run=r}"] == 1
    assert {**phases("r", "math", "UNKNOWN"), **actions("r", "CONTINUE")}.items() <= found.items()
    assert found["path_distance{run=r,group=math}"] == 3.5
    engine.show(replace(engine.views["r"], updated_at=engine.time))
    found = series(of)
    assert found["run_stale{run=r}"] == 0
    assert {**phases("r", "math", "MEMORIZED"), **actions("r", "CHECKPOINT")}.items() <= found.items()


def test_a_finished_run_goes_after_its_time() -> None:
    finished = run_view("done", [Group(name="math")], run={"state": run_pb2.RUN_STATE_FINISHED})
    engine = ShownEngine(finished, run_view("active", [Group(name="math")]))
    of = collector(engine)
    engine.time = START + HOUR - 1
    assert runs(of) == {"active", "done"}
    found = series(of)
    assert (found["run_active{run=done}"], found["run_active{run=active}"]) == (0, 1)
    assert (found["run_stale{run=done}"], found["run_stale{run=active}"]) == (0, 1)
    assert "state_age_seconds{run=done}" not in found
    engine.time = START + HOUR
    assert runs(of) == {"active"}


def test_a_deleted_run_goes_at_once_and_one_of_its_name_is_another() -> None:
    first = run_view("r", [Group(name="math", metrics={"path_distance": 1.0})])
    engine = ShownEngine(first)
    of = collector(engine)
    assert runs(of) == {"r"}
    engine.show()
    assert series(of) == {}
    engine.show(run_view("r", [Group(name="math", metrics={"path_distance": 2.0})]))
    assert series(of)["path_distance{run=r,group=math}"] == 2


@pytest.mark.parametrize(
    "change",
    [
        {"windows": run_view("r", [Group(name="a", metrics={"path_distance": 9.0})]).windows},
        {"last_signal": run_view("r", [Group(name="a", phase=Phase.REGRESSING)]).last_signal},
        {"phase_changes": {"a": 5}},
        {"groups": ("a", "other", "c")},
        {"health": health(connected_ranks=0)},
        {"checkpoints": 3},
        {"run": run_view("r", run={"step": 41}).run},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_in_a_view_changes_in_the_next_scrape(change: dict[str, Any]) -> None:
    view = run_view("r", [Group(name="a"), Group(name="other", best=7)])
    engine = ShownEngine(view)
    of = collector(engine, series_groups=2)
    before = series(of)
    changed = replace(view, **change)
    engine.show(changed)
    after = series(of)
    assert after != before
    assert after == series(collector(ShownEngine(changed), series_groups=2))


def test_lines_of_groups_are_not_written_again_without_a_new_window(monkeypatch: pytest.MonkeyPatch) -> None:
    view = run_view("r", [Group(name="a")])
    engine = ShownEngine(view)
    of = collector(engine)
    before = series(of)
    monkeypatch.setattr("pathwatch.server.exporter.state_collector.group_states", None)
    engine.show(replace(view, updated_at=START + 1))
    assert series(of) == before | {"state_age_seconds{run=r}": 0.0}


def test_groups_beyond_the_limit_share_series() -> None:
    groups = [
        Group(name=name, metrics={"path_distance": distance, "window_samples": 10.0}, best=1)
        for name, distance in (("b", 1.0), ("a", 2.0), ("d", 3.0), ("c", 5.0))
    ]
    found = series(collector(ShownEngine(run_view("r", groups)), series_groups=2))
    assert found["other_groups{run=r}"] == 2
    distances = {name: value for name, value in found.items() if name.startswith("path_distance{")}
    assert distances == {
        "path_distance{run=r,group=a}": 2,
        "path_distance{run=r,group=b}": 1,
        "path_distance{run=r,group=other}": 4,
    }
    assert found["window_samples{run=r,group=other}"] == 20
    assert phases("r", "other", "LEARNING").items() <= found.items()
    assert "best_checkpoint_step{run=r,group=other}" not in found


def test_a_plug_in_cannot_take_the_name_of_another_family() -> None:
    metrics = {"run_step": 1.0, "bad name": 1.0, "requests_total": 1.0, "good": 1.0}
    found = series(collector(ShownEngine(run_view("r", [Group(name="a", metrics=metrics)]))))
    assert found["run_step{run=r}"] == 40
    assert {name for name in found if name.endswith("{run=r,group=a}")} == {
        "good{run=r,group=a}",
        "window_step{run=r,group=a}",
        "window_partial{run=r,group=a}",
        "group_phase_since_step{run=r,group=a}",
        "phase_changes_total{run=r,group=a}",
    }
