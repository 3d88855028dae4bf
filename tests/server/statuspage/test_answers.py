"""What the API says is what gRPC says, and what docs/api-v1.schema.json promises."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from api_requests import ask
from recorded_run import LASTING, RecordedRun, made_up, recorded

from pathwatch.client import Client
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig
from pathwatch.server.statuspage import resources
from pathwatch.v1 import run_pb2, run_pb2_grpc, signal_pb2, signal_pb2_grpc

Check = Callable[[str, Any], None]
RUNS = ("back", "done", "empty", "open")


class Told:
    """What gRPC says of one run."""

    def __init__(self, address: str, name: str) -> None:
        with grpc.insecure_channel(address) as channel:
            runs = run_pb2_grpc.RunServiceStub(channel)
            signals = signal_pb2_grpc.SignalServiceStub(channel)
            self.run = runs.GetRun(run_pb2.GetRunRequest(name=name)).run
            self.signal = signals.GetSignal(signal_pb2.GetSignalRequest(run=name)).signal
            history = signals.GetMetrics(signal_pb2.GetMetricsRequest(run=name))
            self.windows = list(history.windows)
            self.signals = list(history.signals)
            self.rankings = {
                group: list(
                    runs.RankCheckpoints(run_pb2.RankCheckpointsRequest(run=name, group=group)).checkpoints
                )
                for group in ("", *self.run.groups)
            }


told_once = functools.cache(Told)
"""Of runs of which nothing more comes, and which do not go stale."""


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundServer]:
    """A recorded run whose groups change their phases."""
    with (
        BackgroundServer(ServerConfig(data=tmp_path_factory.mktemp("replayed"))) as server,
        RecordedRun(
            server.grpc_address, "replayed", recorded("text_c_s0"), per_layer=True, grace_seconds=LASTING
        ) as run,
    ):
        run.play()
        yield server


@pytest.fixture(params=[*RUNS, pytest.param("replayed", marks=pytest.mark.slow)])
def asked(request: pytest.FixtureRequest) -> tuple[str, str, Told]:
    """Address of the API and name of a run there, and what gRPC says of it."""
    name = request.param
    server = request.getfixturevalue("replayed" if name == "replayed" else "made_up_server")
    return server.http_address, name, told_once(server.grpc_address, name)


def get(address: str, path: str) -> Any:
    reply = ask(address, f"/api/v1/{path}")
    assert reply.status == 200, reply.content
    return reply.document


def phase(value: int) -> str:
    return signal_pb2.Phase.Name(signal_pb2.Phase.ValueType(value)).removeprefix("PHASE_")


def action(value: int) -> str:
    return signal_pb2.Action.Name(signal_pb2.Action.ValueType(value)).removeprefix("ACTION_")


def optional(message: Any, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None


def test_runs(made_up_server: BackgroundServer, check_document: Check) -> None:
    answer = get(made_up_server.http_address, "runs")
    check_document("runs", answer)
    with grpc.insecure_channel(made_up_server.grpc_address) as channel:
        listed = run_pb2_grpc.RunServiceStub(channel).ListRuns(run_pb2.ListRunsRequest()).runs
    assert [run["name"] for run in answer["runs"]] == [run.name for run in listed]
    for summary in answer["runs"]:
        run = get(made_up_server.http_address, f"runs/{summary['name']}")
        assert {name: run[name] for name in summary if name != "groups"} == {
            name: value for name, value in summary.items() if name != "groups"
        }
        assert [
            {name: group[name] for name in short}
            for group, short in zip(run["groups"], summary["groups"], strict=True)
        ] == summary["groups"]


def test_run(asked: tuple[str, str, Told], check_document: Check) -> None:
    address, name, told = asked
    answer = get(address, f"runs/{name}")
    check_document("run", answer)
    run, signal = told.run, told.signal
    assert (answer["name"], answer["step"], answer["closed_step"], answer["attempt"]) == (
        name,
        run.step,
        run.closed_step,
        run.attempt,
    )
    assert answer["state"] == ("finished" if name == "done" else "active")
    assert answer["created_at"][:19] == run.created_at.ToJsonString()[:19]
    assert answer["updated_at"][:19] == run.updated_at.ToJsonString()[:19]
    assert answer["signal"] == {
        "revision": signal.revision,
        "created_at": answer["signal"]["created_at"],
        "step": signal.step,
        "action": action(signal.action),
        "stop_at_step": optional(signal, "stop_at_step"),
        "reason": signal.reason,
        "stale": signal.stale,
        "best_checkpoint_step": optional(signal, "best_checkpoint_step"),
    }
    statuses = {status.group: status for status in signal.groups}
    newest = {window.group: window for window in told.windows}
    assert [group["group"] for group in answer["groups"]] == list(run.groups)
    for group in answer["groups"]:
        status, window = statuses[group["group"]], newest[group["group"]]
        assert group == {
            "group": status.group,
            "phase": phase(status.phase),
            "since_step": status.since_step,
            "memorized_ratio": dict(window.metrics).get("memorized_ratio"),
            "reason": status.reason,
            "evidence": dict(status.evidence),
            "best_checkpoint_step": optional(status, "best_checkpoint_step"),
            "window": {
                "step": window.step,
                "first_step": window.first_step,
                "partial": window.partial,
                "metrics": dict(window.metrics),
            },
        }
    assert answer["config"]["layers"] == run.config.topology.layers
    assert answer["config"]["thresholds"] == list(run.config.thresholds)
    assert answer["config"]["policy"] == run.config.policy
    assert answer["health"]["world_size"] == run.world_size
    assert answer["health"]["missing_ranks"] == ([1, 2] if name == "open" else [])
    assert answer["health"]["partial_rounds"] == (6 if name == "open" else 0)
    assert answer["metric_help"].keys() == {metric for window in newest.values() for metric in window.metrics}


def test_series(asked: tuple[str, str, Told], check_document: Check) -> None:
    address, name, told = asked
    answer = get(address, f"runs/{name}/series")
    check_document("series", answer)
    assert (answer["closed_step"], answer["attempt"], answer["stride"]) == (
        told.run.closed_step,
        told.run.attempt,
        1,
    )
    assert list(answer["groups"]) == list(told.run.groups)
    for group, columns in answer["groups"].items():
        windows = [window for window in told.windows if window.group == group]
        assert columns["step"] == [window.step for window in windows]
        assert columns["attempt"] == [window.attempt for window in windows]
        assert columns["phase"] == [phase(window.phase) for window in windows]
        assert columns["partial"] == [window.partial for window in windows]
        assert columns["metrics"].keys() == {metric for window in windows for metric in window.metrics}
        for metric, values in columns["metrics"].items():
            assert values == [dict(window.metrics).get(metric) for window in windows]


def test_part_of_a_series(made_up_server: BackgroundServer, check_document: Check) -> None:
    path, group = "runs/done/series", "ünï <b>/&="
    whole = get(made_up_server.http_address, path)["groups"]
    later = get(made_up_server.http_address, f"{path}?after_step=500&group={quote(group)}")
    assert list(later["groups"]) == [group]
    assert later["groups"][group]["step"] == [step for step in whole[group]["step"] if step > 500]
    chosen = get(made_up_server.http_address, f"{path}?metrics=train_loss,none,path_distance&points=7")
    check_document("series", chosen)
    assert chosen["stride"] == 6
    for name, columns in chosen["groups"].items():
        assert list(columns["metrics"]) == ["train_loss", "none", "path_distance"]
        assert columns["metrics"]["none"] == [None] * 7
        losses = dict(zip(whole[name]["step"], whole[name]["metrics"]["train_loss"], strict=True))
        assert columns["metrics"]["train_loss"] == [losses[step] for step in columns["step"]]
        assert (columns["step"][0], columns["step"][-1]) == (0, 39 * 25)
    nothing_new = get(made_up_server.http_address, f"{path}?after_step=975")
    check_document("series", nothing_new)
    assert [columns["step"] for columns in nothing_new["groups"].values()] == [[], [], []]


def test_many_groups_have_fewer_windows_each(
    made_up_server: BackgroundServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "MAX_WINDOWS", 24)
    whole = get(made_up_server.http_address, "runs/done/series?points=1000")
    assert all(5 < len(columns["step"]) <= 8 for columns in whole["groups"].values())
    one = get(made_up_server.http_address, "runs/done/series?points=1000&group=math")
    assert 20 < len(one["groups"]["math"]["step"]) <= 24


def test_layers(asked: tuple[str, str, Told], check_document: Check) -> None:
    address, name, told = asked
    for group in told.run.groups:
        answer = get(address, f"runs/{name}/layers?group={quote(group)}&points=1000")
        check_document("layers", answer)
        windows = [w for w in told.windows if w.group == group and w.layer_path_distance]
        assert bool(windows) == told.run.config.per_layer
        assert answer["layers"] == told.run.config.topology.layers
        assert answer["step"] == [window.step for window in windows]
        assert answer["distance"] == [list(window.layer_path_distance) for window in windows]
        assert all(len(distances) == answer["layers"] for distances in answer["distance"])


def test_checkpoints(asked: tuple[str, str, Told], check_document: Check) -> None:
    address, name, told = asked
    for group, ranking in told.rankings.items():
        answer = get(address, f"runs/{name}/checkpoints" + (group and f"?group={quote(group)}"))
        check_document("checkpoints", answer)
        assert answer["group"] == (group or None)
        assert answer["checkpoints"] == [
            {
                "rank": rank,
                "step": place.checkpoint.step,
                "attempt": place.checkpoint.attempt,
                "tag": place.checkpoint.tag,
                "score": place.score,
                "reason": place.reason,
            }
            for rank, place in enumerate(ranking, 1)
        ]


def test_events(asked: tuple[str, str, Told], check_document: Check) -> None:
    """Told one after the other, the events lead from nothing to what the signal says."""
    address, name, told = asked
    answer = get(address, f"runs/{name}/events")
    check_document("events", answer)
    assert answer["revision"] == told.signal.revision
    said = {"action": "CONTINUE", "stop_at_step": None, "best": {}, "phases": {}}
    left = list(answer["events"])
    for signal in told.signals:
        while left and left[0]["revision"] == signal.revision:
            event = left.pop(0)
            assert (event["step"], event["at"][:19]) == (
                signal.step,
                signal.created_at.ToJsonString()[:19],
            )
            take(said, event)
        statuses = {status.group: status for status in signal.groups}
        assert said["action"] == action(signal.action)
        assert said["stop_at_step"] == optional(signal, "stop_at_step")
        bests = {group: optional(status, "best_checkpoint_step") for group, status in statuses.items()}
        bests[None] = optional(signal, "best_checkpoint_step")
        assert said["best"] == {group: best for group, best in bests.items() if best is not None}
        phases = {group: phase(status.phase) for group, status in statuses.items()}
        assert said["phases"] == {group: each for group, each in phases.items() if each != "UNKNOWN"}
    assert not left


def take(said: dict[str, Any], event: dict[str, Any]) -> None:
    group, before, after = event["group"], event["before"], event["after"]
    if event["kind"] == "action":
        assert said["action"] == before
        said |= {"action": after, "stop_at_step": event["stop_at_step"]}
        assert event["reason"]
    elif event["kind"] == "phase":
        assert said["phases"].pop(group, "UNKNOWN") == before
        if after != "UNKNOWN":
            said["phases"][group] = after
        assert event["reason"]
    else:
        assert said["best"].pop(group, None) == before
        if after is not None:
            said["best"][group] = after


def test_later_events(made_up_server: BackgroundServer) -> None:
    whole = get(made_up_server.http_address, "runs/back/events")
    for after in range(whole["revision"] + 1):
        later = get(made_up_server.http_address, f"runs/back/events?after_revision={after}")
        assert later["events"] == [event for event in whole["events"] if event["revision"] > after]
        assert later["revision"] == whole["revision"]


def test_a_revision_of_a_run_before(made_up_server: BackgroundServer) -> None:
    """A run that was deleted and made anew begins at 1 again: whoever was further is told everything."""
    whole = get(made_up_server.http_address, "runs/back/events")
    for after in (whole["revision"] + 1, 10**6):
        assert get(made_up_server.http_address, f"runs/back/events?after_revision={after}") == whole


def test_a_run_that_nobody_sent_to(made_up_server: BackgroundServer, check_document: Check) -> None:
    address = made_up_server.http_address
    assert get(address, "runs/empty")["groups"] == []
    assert get(address, "runs/empty/series")["groups"] == {}
    assert get(address, "runs/empty/checkpoints")["checkpoints"] == []
    assert get(address, "runs/empty/events")["events"] == []


def test_a_checkpoint_that_was_moved(tmp_path: Path) -> None:
    """It is told of at once, also after the last round of a run, and though there are as many as before."""
    with (
        BackgroundServer(ServerConfig(data=tmp_path)) as server,
        RecordedRun(server.grpc_address, "run", made_up(2, 1)) as run,
        Client(server.grpc_address) as client,
    ):
        run.play()
        run.finish()
        path = "/api/v1/runs/run/checkpoints"
        before = ask(server.http_address, path)
        same = ask(server.http_address, path, If_None_Match=before.headers["etag"])
        assert (same.status, same.content) == (304, b"")
        assert "content-length" not in same.headers
        assert {each["tag"] for each in before.document["checkpoints"]} == {"step-0", "step-25"}
        client.register_checkpoint("run", step=25, tag="moved")
        after = ask(server.http_address, path, If_None_Match=before.headers["etag"])
        assert {each["tag"] for each in after.document["checkpoints"]} == {"step-0", "moved"}


def test_a_window_is_told_of_as_soon_as_it_is_judged(tmp_path: Path) -> None:
    """Whoever follows a run by `after_step` and `after_revision` sees each window and event once."""
    with (
        BackgroundServer(ServerConfig(data=tmp_path)) as server,
        RecordedRun(server.grpc_address, "run", made_up(6, 1)) as run,
    ):
        seen: list[int] = []
        told: list[int] = []
        closed, revision = -1, 0
        for _ in range(6):
            run.play(1)
            answer = get(server.http_address, f"runs/run/series?after_step={closed}")
            closed = answer["closed_step"]
            seen += answer["groups"]["math"]["step"]
            answer = get(server.http_address, f"runs/run/events?after_revision={revision}")
            revision = answer["revision"]
            told += [event["revision"] for event in answer["events"]]
        assert seen == [0, 25, 50, 75, 100, 125]
        whole = get(server.http_address, "runs/run/events")["events"]
        assert told == [event["revision"] for event in whole]
        assert told
