"""Requests of every kind, to the API over views made by hand and a real store."""

from __future__ import annotations

import gzip
import logging
import math
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_requests import Reply, ask, call
from hypothesis import example, given, settings
from hypothesis import strategies as st
from recorded_run import RecordedRun, made_up
from run_views import START, Group, ShownEngine, health, run_view

from pathwatch.client import Client
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig
from pathwatch.server.engine.view import RunView
from pathwatch.server.phases.verdict import Action, Phase
from pathwatch.server.statuspage import gate
from pathwatch.server.statuspage.api import Api
from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.rows import PutRound, PutRun, PutSignal, RunRow, SignalRow, WindowRow
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.v1 import signal_pb2

PARTS = ("", "/series", "/layers?group=math", "/events", "/checkpoints")
STEPS = 60


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    """Holds `run` with one group, a window at each step."""
    store = SqliteStore(tmp_path_factory.mktemp("data"))
    row = RunRow(
        name="run",
        config=b"",
        finished=False,
        attempt=0,
        first_step=0,
        step=STEPS,
        closed_step=STEPS,
        world_size=1,
        groups=("math",),
        created_at=START,
        updated_at=START,
    )
    rounds = [PutRound(run="run", attempt=0, step=step, windows=(window(step),)) for step in range(STEPS)]
    signal = signal_pb2.Signal(run="run", revision=1, step=-1, action=signal_pb2.ACTION_CONTINUE)
    first = PutSignal(row=SignalRow(run="run", revision=1, step=-1, signal=signal.SerializeToString()))
    store.commit([PutRun(row=row), *rounds, first])
    yield store
    store.close()


def window(step: int) -> WindowRow:
    return WindowRow(
        run="run",
        attempt=0,
        first_step=step,
        step=step,
        group="math",
        partial=False,
        judged=True,
        phase=Phase.LEARNING,
        reason="",
        metrics={"train_loss": math.nan if step == 3 else 0.1 * step, "huge": math.inf, "tiny": -math.inf},
        layer_path_distance=(1.0, math.nan),
        evidence=b"",
        losses=b"",
    )


def view(**changes: Any) -> RunView:
    shown = run_view("run", [Group(name="math")])
    shown.last_signal.revision = 1
    return replace(shown, **changes)


def api(store: Any, *views: RunView, now: float = START) -> Api:
    return Api(ShownEngine(*views, now=now), store)  # type: ignore[arg-type]


def error_code(reply: Reply) -> str:
    error = reply.document["error"]
    assert set(error) == {"code", "message"}
    assert error["message"].isprintable()
    return str(error["code"])


@pytest.mark.parametrize(
    ("part", "query"),
    [
        ("series", "points=-1"),
        ("series", "points=0"),
        ("series", "points=1"),
        ("series", "points=1000000000"),
        ("series", "points=" + "9" * 5000),
        ("series", "points=1e3"),
        ("series", "points=0x10"),
        ("series", "points= 10"),
        ("series", "points=1_0"),
        ("series", "points=%D9%A1%D9%A2"),
        ("series", "points="),
        ("series", "points=10&points=10"),
        ("series", "points"),
        ("series", "after_step=nan"),
        ("series", "after_step=-2"),
        ("series", "after_step=9007199254740993"),
        ("series", "metrics="),
        ("series", "metrics=a,,b"),
        ("series", "metrics=" + ",".join(f"m{i}" for i in range(65))),
        ("series", "group=%ff"),
        ("series", "point=10"),
        ("series", "&".join(f"p{i}=1" for i in range(100))),
        ("series", "group=" + "x" * 20000),
        ("layers", ""),
        ("layers", "group="),
        ("layers", "group=math&points=1001"),
        ("layers", "group=math&after_step=1"),
        ("events", "after_revision=-1"),
        ("events", "after_revision=x"),
        ("checkpoints", "limit=1"),
    ],
)
def test_parameters_that_cannot_be_used(store: SqliteStore, part: str, query: str) -> None:
    reply = call(api(store, view()), f"/api/v1/runs/run/{part}", query)
    assert reply.status == 400, reply.content
    assert error_code(reply) == "bad_request"
    assert len(reply.content) < 2000


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/api/", ""),
        ("/api/v1", ""),
        ("/api/v1/", ""),
        ("/api/v2/runs", ""),
        ("/api/v1/runs/", ""),
        ("/api/v1/runs/none", ""),
        ("/api/v1/runs/run/", ""),
        ("/api/v1/runs/run/none", ""),
        ("/api/v1/runs/run/series/more", ""),
        ("/api/v1/runs/run\x00", ""),
        ("/api/v1/runs/run\n", ""),
        ("/api/v1/runs/../runs", ""),
        ("/api/v1/runs/" + "x" * 50000, ""),
        ("/api/v1/runs/run/series", "group=none"),
        ("/api/v1/runs/run/series", "group=math%00"),
        ("/api/v1/runs/run/layers", "group=%F0%9F%94%A5"),
        ("/api/v1/runs/run/checkpoints", "group=none"),
    ],
)
def test_what_there_is_not(store: SqliteStore, path: str, query: str) -> None:
    reply = call(api(store, view()), path, query)
    assert reply.status == 404, reply.content
    assert error_code(reply) == "not_found"
    assert len(reply.content) < 2000


@settings(max_examples=200)
@given(
    part=st.sampled_from(["series", "layers", "events"]),
    query=st.text(max_size=60)
    | st.lists(
        st.tuples(
            st.sampled_from(["points", "group", "after_step", "metrics", "after_revision"]),
            st.text(max_size=8) | st.integers().map(str) | st.just("math"),
        ),
        max_size=4,
    ).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)),
)
@example(part="series", query="points=2&group=math")
def test_whatever_is_asked(store: SqliteStore, part: str, query: str) -> None:
    """The header of a request is Latin-1; whatever it holds, the answer is one of three, and JSON."""
    query = query.encode("utf-8", "surrogatepass").decode("latin-1")
    reply = call(api(store, view()), f"/api/v1/runs/run/{part}", query)
    assert reply.status in (200, 400, 404), reply.content
    assert reply.document
    if reply.status == 200 and part == "series":
        for columns in reply.document["groups"].values():
            lists = [columns[name] for name in ("step", "attempt", "phase", "partial")]
            assert {len(each) for each in (*lists, *columns["metrics"].values())} == {len(columns["step"])}


def test_what_is_no_number_is_null(store: SqliteStore) -> None:
    shown = view(windows={"math": window(3)})
    shown.last_signal.groups[0].evidence.update({"drop": math.nan, "rise": math.inf, "share": 0.5})
    served = api(store, shown)
    (group,) = call(served, "/api/v1/runs/run").document["groups"]
    assert group["evidence"] == {"drop": None, "rise": None, "share": 0.5}
    assert group["window"]["metrics"] == {"huge": None, "tiny": None, "train_loss": None}
    columns = call(served, "/api/v1/runs/run/series").document["groups"]["math"]["metrics"]
    assert columns["train_loss"] == [None if step == 3 else 0.1 * step for step in range(STEPS)]
    assert columns["huge"] == [None] * STEPS
    layers = call(served, "/api/v1/runs/run/layers", "group=math").document
    assert layers["distance"] == [[1.0, None]] * STEPS


def test_a_group_without_a_verdict_is_there(store: SqliteStore) -> None:
    served = api(store, run_view("run", [Group(name="new", step=None, phase=None), Group(name="old")]))
    groups = call(served, "/api/v1/runs/run").document["groups"]
    assert [(group["group"], group["phase"], group["since_step"]) for group in groups] == [
        ("new", "UNKNOWN", None),
        ("old", "LEARNING", 10),
    ]
    assert groups[0]["window"] is None
    assert groups[0]["reason"]


def test_silence(store: SqliteStore) -> None:
    """A signal that is stale reads as the gRPC API would have it."""
    shown = run_view("run", [Group(name="math")], action=Action.CHECKPOINT)
    served = api(store, shown, now=START + 61.5)
    run = call(served, "/api/v1/runs/run").document
    assert (run["stale"], run["action"], run["groups"][0]["phase"]) == (True, "CONTINUE", "UNKNOWN")
    assert run["signal"]["stale"]
    assert (run["health"]["seconds_since_data"], run["health"]["patience_seconds"]) == (61.5, 60.0)
    (summary,) = call(served, "/api/v1/runs").document["runs"]
    assert (summary["stale"], summary["action"]) == (True, "CONTINUE")


@pytest.mark.parametrize("part", PARTS[:-1])
def test_asked_again(store: SqliteStore, part: str) -> None:
    path, _, query = f"/api/v1/runs/run{part}".partition("?")
    reply = call(api(store, view()), path, query)
    tag = reply.headers["etag"]
    assert tag.startswith('W/"')
    assert reply.headers["cache-control"] == "no-cache"
    later = api(store, view(), now=START + 5)
    for held in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
        again = call(later, path, query, if_none_match=held)
        assert (again.status, again.content) == (304, b"")
        assert again.headers["etag"] == tag
    for held in ('"other"', tag.strip('W/"'), ""):
        assert call(later, path, query, if_none_match=held).status == 200


class Door:
    """A store that can be shut."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.open = True

    def __getattr__(self, name: str) -> Any:
        assert self.open, f"{name} is read"
        return getattr(self._store, name)


@pytest.mark.parametrize("part", PARTS)
def test_what_has_not_changed_is_not_even_read(store: SqliteStore, part: str) -> None:
    path, _, query = f"/api/v1/runs/run{part}".partition("?")
    engine, door = Ranking(view()), Door(store)
    served = Api(engine, door)  # type: ignore[arg-type]
    tag = call(served, path, query).headers["etag"]
    engine.time += 5
    door.open = engine.ranks = False
    assert call(served, path, query, if_none_match=tag).status == 304


def changed(**run: Any) -> RunView:
    shown = view()
    for name, value in run.items():
        setattr(shown.run, name, value)
    return shown


def told(**signal: Any) -> RunView:
    shown = view()
    for name, value in signal.items():
        setattr(shown.last_signal, name, value)
    return shown


JUDGED = {"", "/series", "/layers?group=math", "/checkpoints", "list"}


@pytest.mark.parametrize(
    ("other", "differ"),
    [
        (changed(step=41), {"", "list"}),
        (changed(closed_step=41), JUDGED),
        (changed(attempt=1), JUDGED),
        (changed(state=2), {"", "list"}),
        (told(revision=2), {"", "list", "/events"}),
        (view(updated_at=START - 1), {"", "list"}),
        (view(patience=-1.0), {"", "list"}),  # it is stale
        (view(registrations=1), {"/checkpoints"}),
        (view(health=health(connected_ranks=2)), {""}),
        (view(health=health(observations={"accepted": 1})), {""}),
        (view(), set()),
    ],
)
def test_what_changes_a_tag(store: SqliteStore, other: RunView, differ: set[str]) -> None:
    engine = Ranking()
    served = Api(engine, store)  # type: ignore[arg-type]

    def tags(shown: RunView) -> dict[str, str]:
        engine.show(shown)
        found = {"list": call(served, "/api/v1/runs").headers["etag"]}
        for part in PARTS:
            path, _, query = f"/api/v1/runs/run{part}".partition("?")
            found[part] = call(served, path, query).headers["etag"]
        return found

    before, after = tags(view()), tags(other)
    assert {part for part in before if before[part] != after[part]} == differ


class Ranking(ShownEngine):
    """Ranks at once, as long as it does."""

    ranks = True

    def rank_checkpoints(self, name: str, group: str | None, limit: int) -> Any:
        assert self.ranks, "it is asked"
        done: Future[list[Any]] = Future()
        done.set_result([])
        return done


def test_rankings_of_a_server_before_are_asked_for_again(store: SqliteStore) -> None:
    """It may have seen registrations that this one counts no more."""
    old, new = (Api(Ranking(view()), store) for _ in range(2))  # type: ignore[arg-type]
    tag = call(old, "/api/v1/runs/run/checkpoints").headers["etag"]
    assert call(new, "/api/v1/runs/run/checkpoints", if_none_match=tag).status == 200
    assert call(old, "/api/v1/runs/run/checkpoints", if_none_match=tag).status == 304


def test_a_run_of_the_same_name_is_another(store: SqliteStore) -> None:
    other = view()
    other.run.created_at.FromSeconds(5)
    for part in PARTS[:-1]:
        path, _, query = f"/api/v1/runs/run{part}".partition("?")
        tag = call(api(store, view()), path, query).headers["etag"]
        assert call(api(store, other), path, query, if_none_match=tag).status == 200


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("deflate,gzip", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("identity", False),
        ("", False),
    ],
)
def test_compression(store: SqliteStore, accepted: str, compressed: bool) -> None:
    served = api(store, view())
    plain = call(served, "/api/v1/runs/run/series").content
    reply = call(served, "/api/v1/runs/run/series", accept_encoding=accepted)
    assert ("content-encoding" in reply.headers) == compressed
    assert (gzip.decompress(reply.content) if compressed else reply.content) == plain
    assert len(reply.content) == int(reply.headers["content-length"])
    assert reply.headers["vary"] == "Accept-Encoding"
    if compressed:
        assert len(reply.content) < len(plain) / 2


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_it_only_reads(store: SqliteStore, method: str) -> None:
    for path in ("/api/v1/runs", "/api/v1/runs/run", "/api/v1/none"):
        reply = call(api(store, view()), path, method=method)
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
        assert error_code(reply) == "method_not_allowed"


@pytest.mark.parametrize("path", ["/api/v1/runs/run/series", "/api/v1/none"])
def test_head(store: SqliteStore, path: str) -> None:
    got, head = (call(api(store, view()), path, method=method) for method in ("GET", "HEAD"))
    assert (head.status, head.headers, head.content) == (got.status, got.headers, b"")


@pytest.mark.parametrize("path", ["/api/v1/runs", "/api/v1/none"])
def test_what_browsers_are_told(store: SqliteStore, path: str) -> None:
    headers = call(api(store, view()), path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


class FailingStore:
    """Fails as it is told."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error


def test_a_store_that_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    reply = call(
        api(FailingStore(StoreError("cannot read /secret/place: disk I/O error")), view()),
        "/api/v1/runs/run/series",
    )
    assert (reply.status, error_code(reply)) == (503, "unavailable")
    assert int(reply.headers["retry-after"]) > 0
    assert b"secret" not in reply.content
    assert "disk I/O error" in caplog.text


def test_a_fault_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        reply = call(api(FailingStore(KeyError("inner")), view()), "/api/v1/runs/run/events")
    assert (reply.status, error_code(reply)) == (500, "internal")
    assert b"inner" not in reply.content
    assert "inner" in caplog.text


@pytest.mark.parametrize("part", ["/series", "/layers?group=math", "/events"])
def test_a_run_that_is_deleted_between_view_and_store(tmp_path: Path, part: str) -> None:
    empty = SqliteStore(tmp_path)
    path, _, query = f"/api/v1/runs/run{part}".partition("?")
    reply = call(api(empty, view()), path, query)
    empty.close()
    assert (reply.status, error_code(reply)) == (404, "not_found")


def test_a_run_that_is_deleted_between_two_requests(tmp_path: Path) -> None:
    with BackgroundServer(ServerConfig(data=tmp_path)) as server:
        with RecordedRun(server.grpc_address, "run", made_up(3, 1)) as run:
            run.play()
        paths = [f"/api/v1/runs/run{part.replace('math', 'code')}" for part in PARTS]
        tags = {}
        for path in paths:
            reply = ask(server.http_address, path)
            assert reply.status == 200, reply.content
            tags[path] = reply.headers["etag"]
        with Client(server.grpc_address) as client:
            client.delete_run("run")
        for path in paths:
            reply = ask(server.http_address, path, If_None_Match=tags[path])
            assert (reply.status, error_code(reply)) == (404, "not_found")
        assert ask(server.http_address, "/api/v1/runs").document["runs"] == []


class HeldStore:
    """Reads that last until they are let go."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.entered = threading.Semaphore(0)
        self.let_go = threading.Event()

    def thinned_history(self, *args: Any, **options: Any) -> Any:
        self.entered.release()
        assert self.let_go.wait(30)
        return self._store.thinned_history(*args, **options)


def test_reads_of_history_take_turns(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "WAIT_SECONDS", 0.05)
    held = HeldStore(store)
    served = api(held, view())
    replies: list[Reply] = []
    readers = [
        threading.Thread(target=lambda: replies.append(call(served, "/api/v1/runs/run/series")))
        for _ in range(gate.AT_ONCE)
    ]
    for reader in readers:
        reader.start()
    for _ in readers:
        assert held.entered.acquire(timeout=30)
    refused = call(served, "/api/v1/runs/run/series")
    assert (refused.status, error_code(refused)) == (503, "unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert call(served, "/api/v1/runs/run").status == 200, "what is in memory needs no turn"
    held.let_go.set()
    for reader in readers:
        reader.join()
    assert [reply.status for reply in replies] == [200] * gate.AT_ONCE
    assert call(served, "/api/v1/runs/run/series").status == 200
