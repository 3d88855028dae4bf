"""What is Redis's own: commits applied once, fences, servers that die, freeze or forget."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from ports import lasting_port
from redis.cluster import key_slot
from redis_process import RedisProcess, until
from warned import warned

from pathwatch.server.config import RedisOptions, Secret
from pathwatch.server.config.redis import parse_redis_url
from pathwatch.server.engine.committing import commit as commit_all
from pathwatch.server.store import redis_log
from pathwatch.server.store.interface import FencedError, StoreError, UnstorableError
from pathwatch.server.store.redis import RedisStore
from pathwatch.server.store.redis_fence import Fence
from pathwatch.server.store.redis_keys import RUNS, key, keys
from pathwatch.server.store.rows import BatchRow, DeleteRun, PutBatch, PutRun, RunRow, Write

Fill = Callable[..., None]
CALM = RedisOptions(timeout_seconds=30)
SHORT = RedisOptions(timeout_seconds=2)
"""Where Redis is made not to answer."""


@pytest.fixture
def stores(redis_server: RedisProcess) -> Iterator[Callable[..., RedisStore]]:
    """Opens stores on an empty Redis, as many as wanted."""
    opened = ExitStack()
    with redis_server.client() as client:
        client.flushall()

    def open_store(url: str = redis_server.url, options: RedisOptions = CALM, **more: object) -> RedisStore:
        return opened.enter_context(closing(RedisStore(parse_redis_url(url), options, **more)))  # type: ignore[arg-type]

    with opened:
        yield open_store


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Callable[..., RedisProcess]]:
    """Starts servers of the test's own."""
    started: list[RedisProcess] = []

    def start(**settings: str) -> RedisProcess:
        started.append(RedisProcess(tmp_path / f"redis-{len(started)}", **settings))
        return started[-1]

    yield start
    for server in started:
        server.kill()


def batch(content: bytes, run: str = "run") -> PutBatch:
    return PutBatch(row=BatchRow(run=run, attempt=0, step=1, batch=content))


def put_run(name: str, step: int = 0) -> PutRun:
    row = RunRow(
        name=name,
        config=b"",
        finished=False,
        attempt=0,
        first_step=0,
        step=step,
        closed_step=step,
        world_size=1,
        groups=(),
        created_at=0.0,
        updated_at=0.0,
    )
    return PutRun(row=row)


def batches(store: RedisStore, run: str = "run") -> list[bytes]:
    return [row.batch for row in store.batches(run)]


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def opened_short(stores: Callable[..., RedisStore]) -> RedisStore:
    """With a run: a machine may stand still for as long as the store waits for a reply."""
    store, writes = until(lambda: stores(options=SHORT)), [put_run("run")]
    until(lambda: store.commit(writes))
    return store


@pytest.mark.slow
def test_what_comes_late_is_applied_once(
    stores: Callable[..., RedisStore], redis_server: RedisProcess
) -> None:
    """The reply did not come: the commit is tried again, and the first one is still under way."""
    store, other = opened_short(stores), stores()
    writes: list[Write] = [batch(b"first")]
    with redis_server.frozen():
        for _ in range(2):
            with pytest.raises(StoreError, match="cannot write to Redis at redis://127"):
                commit_all(store, writes, ())
        writes.append(batch(b"second"))
    wait_until(lambda: bool(batches(other)))
    until(lambda: commit_all(store, writes, ()))
    assert batches(other) == [b"first", b"second"]
    assert [row.name for row in other.runs()] == ["run"]


@pytest.mark.slow
def test_what_was_given_up_does_not_come_after_all(
    stores: Callable[..., RedisStore], redis_server: RedisProcess
) -> None:
    store = opened_short(stores)
    with redis_server.frozen():
        with pytest.raises(StoreError):
            store.commit([batch(b"given up")])
        with pytest.raises(StoreError):
            store.commit([again := batch(b"other")])
    until(lambda: store.commit([again]))
    with closing(stores()) as calm:
        assert batches(calm).count(b"other") == 1
        until(lambda: store.commit([DeleteRun(run="run"), put_run("run")]))
        assert batches(calm) == []


def test_runs_that_a_commit_stored_are_not_stored_again_with_the_others(
    stores: Callable[..., RedisStore], redis_server: RedisProcess
) -> None:
    """One run of three can never be stored: committing goes on run by run."""
    store = stores()
    with redis_server.client() as client:
        client.set(key("broken", "batches"), "of somebody else")
    writes: list[Write] = [batch(run.encode(), run) for run in ("one", "broken", "two")]
    assert commit_all(store, writes, ()).keys() == {"broken"}
    assert (batches(store, "one"), batches(store, "two")) == ([b"one"], [b"two"])
    store.commit([batch(b"more", "one")])
    assert batches(store, "one") == [b"one", b"more"]


def test_a_paused_former_owner_is_fenced_off(
    stores: Callable[..., RedisStore], redis_server: RedisProcess
) -> None:
    with redis_server.client() as client:
        client.hset(key("run", "lease"), mapping={"epoch": "1-old", "owner": "old:1"})
        old = stores(fence=lambda run: Fence("1-old", "old:1", 1000))
        old.commit([put_run("run"), batch(b"old")])
        client.hset(key("run", "lease"), mapping={"epoch": "2-new", "owner": "new:1"})
        # Nothing of the new owner is written yet: the lease alone tells.
        with pytest.raises(FencedError, match="its lease has epoch 2-new, of new:1") as refused:
            old.commit([batch(b"too late")])
        assert refused.value.owner == "new:1"
        new = stores(fence=lambda run: Fence("2-new", "new:1", 1000))
        new.commit([batch(b"new")])
        with pytest.raises(FencedError):
            old.commit([batch(b"too late")])
        assert batches(new) == [b"old", b"new"]


def test_of_two_that_took_one_number_one_writes(
    stores: Callable[..., RedisStore], redis_server: RedisProcess
) -> None:
    """As when Redis lost the first taking."""
    with redis_server.client() as client:
        client.hset(key("run", "lease"), mapping={"epoch": "7-b", "owner": "", "until": 0})
    other = stores(fence=lambda run: Fence("7-a", "a:1", 1000))
    with pytest.raises(FencedError, match=r"its lease has epoch 7-b$"):
        other.commit([put_run("run")])
    assert other.runs() == []


@pytest.mark.parametrize("left", [{}, {"epoch": "9-former", "owner": "former:1", "until": 1}])
def test_a_lease_that_redis_has_lost_is_put_back_by_a_write(
    stores: Callable[..., RedisStore], redis_server: RedisProcess, left: dict[str, str | int]
) -> None:
    store = stores(fence=lambda run: Fence("10-own", "own:1", 60_000))
    with redis_server.client() as client:
        if left:
            client.hset(key("run", "lease"), mapping=left)
        store.commit([put_run("run"), batch(b"a")])
        lease = client.hgetall(key("run", "lease"))
        seconds, _ = client.time()
    assert (lease[b"epoch"], lease[b"owner"]) == (b"10-own", b"own:1")
    assert 0 < int(lease[b"until"]) / 1000 - seconds <= 61
    assert batches(store) == [b"a"]


def test_a_run_without_a_fence_is_not_written_where_others_have_one(
    stores: Callable[..., RedisStore],
) -> None:
    fences = {"run": Fence("1-a", "a:1", 1000)}
    store = stores(fence=fences.get)
    refused = commit_all(store, [put_run("run"), put_run("other")], ())
    assert refused.keys() == {"other"}
    assert isinstance(refused["other"], FencedError)
    assert [row.name for row in store.runs()] == ["run"]
    del fences["run"]
    assert commit_all(store, [batch(b"a")], ()).keys() == {"run"}
    assert batches(store) == []


def test_a_run_that_was_let_go_is_taken_up_as_the_other_left_it(stores: Callable[..., RedisStore]) -> None:
    ours = {"run": Fence("1-a", "a:1", 1000)}
    first = stores(fence=ours.get)
    second = stores(fence=lambda run: Fence("2-b", "b:1", 1000))
    first.commit([put_run("run"), batch(b"a")])
    second.take_up("run")
    second.commit([batch(b"b")])
    assert commit_all(first, [batch(b"too late")], ()).keys() == {"run"}
    first.let_go("run")
    second.let_go("run")
    ours["run"] = Fence("3-a", "a:1", 1000)
    first.take_up("run")
    first.commit([batch(b"c")])
    assert batches(first) == [b"a", b"b", b"c"]


def test_two_servers_do_not_mix(stores: Callable[..., RedisStore]) -> None:
    """Without leases: the one that finds the other's writes stores nothing of its own."""
    first, second = stores(), stores()
    first.commit([put_run("run"), batch(b"a")])
    second = stores()
    first.commit([batch(b"b")])
    for _ in range(2):
        refused = commit_all(second, [batch(b"c"), batch(b"whole", "other")], ())
        assert refused.keys() == {"run"}
        assert isinstance(refused["run"], FencedError)
        assert "was written by another server" in str(refused["run"])
    assert batches(first) == [b"a", b"b"]
    assert batches(first, "other") == [b"whole", b"whole"]
    second.take_up("run")
    assert commit_all(second, [batch(b"c")], ()) == {}
    assert commit_all(first, [batch(b"d")], ()).keys() == {"run"}
    assert batches(first) == [b"a", b"b", b"c"]


def test_what_another_server_did_to_a_run_at_rest_is_remembered(
    stores: Callable[..., RedisStore], redis_server: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    """It is found with a new connection, when another run is written."""
    first = stores()
    first.commit([batch(b"a", "rests"), batch(b"a")])
    stores().commit([batch(b"b", "rests")])
    with redis_server.client() as client:
        client.client_kill_filter(_type="normal")
    first.commit([batch(b"b")])
    assert "run 'rests' in Redis" in caplog.text
    refused = commit_all(first, [batch(b"c", "rests"), batch(b"c")], ())
    assert isinstance(refused.get("rests"), FencedError)
    assert (batches(first, "rests"), batches(first)) == ([b"a", b"b"], [b"a", b"b", b"c"])


def test_all_keys_of_a_run_are_in_one_slot() -> None:
    for run in ("run", "a.b-c_d", "x" * 128):
        assert len({key_slot(name.encode()) for name in keys(run)}) == 1
    assert len({key_slot(key(f"run-{i}", "run").encode()) for i in range(50)}) > 40


def test_a_deleted_run_leaves_no_key_but_one_that_goes(
    stores: Callable[..., RedisStore], redis_server: RedisProcess, fill: Fill
) -> None:
    store = stores()
    fill(store, range(3))
    store.commit([DeleteRun(run="run")])
    with redis_server.client() as client:
        left = client.keys("pathwatch:*")
        assert left == [key("run", "commits").encode()]
        assert 0 < client.ttl(left[0]) <= 3600
    fill(store, range(2))
    assert [row.step for row in store.windows("run")] == [0, 1]
    with redis_server.client() as client:
        assert client.ttl(key("run", "commits")) == -1


def test_nothing_acknowledged_is_lost_by_kill_9(servers: Callable[..., RedisProcess], fill: Fill) -> None:
    server = servers()
    with closing(RedisStore(parse_redis_url(server.url), CALM)) as store:
        for step in range(0, 30, 10):
            fill(store, range(step, step + 10))
            server.kill()
            with pytest.raises(StoreError, match="cannot write"):
                fill(store, range(step + 10, step + 11))
            server.start()
        fill(store, range(30, 31))
        assert [row.step for row in store.windows("run")] == list(range(31))
        assert [row.step for row in store.batches("run")] == [31]


def test_the_newest_commits_that_redis_has_lost_are_written_again(
    servers: Callable[..., RedisProcess],
    tmp_path: Path,
    fill: Fill,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when its machine failed before an fsync: its files are those of a moment ago."""
    monkeypatch.setattr(redis_log, "KEPT_SECONDS", 600.0)  # the machine of the test may be slow
    server = servers()
    with closing(RedisStore(parse_redis_url(server.url), CALM)) as store:
        fill(store, range(3))
        store.commit([put_run("idle", 1)])
        set_back(
            server,
            tmp_path,
            lambda: (
                fill(store, range(3, 6)),
                fill(store, range(2), run="new"),
                store.commit([put_run("idle", 2)]),
            ),
        )
        assert [row.step for row in store.windows("run")] == [0, 1, 2]
        fill(store, range(6, 7))
        assert [row.step for row in store.windows("run")] == list(range(7))
        assert [row.step for row in store.windows("new")] == [0, 1]
        assert {row.name: row.step for row in store.runs()} == {"idle": 2, "new": 1, "run": 6}
        assert "has lost the newest commits of run: they are written again" in caplog.text
        fill(store, range(7, 9))
    with closing(RedisStore(parse_redis_url(server.url), CALM)) as store:
        assert [row.step for row in store.windows("run")] == list(range(9))


def test_more_lost_than_is_kept_is_said(
    servers: Callable[..., RedisProcess], tmp_path: Path, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_log, "KEPT_BYTES", 6000)
    server = servers()
    with closing(RedisStore(parse_redis_url(server.url), CALM)) as store:
        fill(store, range(3))
        set_back(server, tmp_path, lambda: fill(store, range(3, 6)))
        for _ in range(2):
            refused = commit_all(store, [batch(b"next")], ())
            assert isinstance(refused.get("run"), UnstorableError)
            assert "was set back, by more than is kept" in str(refused["run"])
        assert [row.step for row in store.windows("run")] == [0, 1, 2]
        # It is taken up again from what is stored, and goes on.
        store.take_up("run")
        fill(store, range(3, 5))
        assert [row.step for row in store.windows("run")] == [0, 1, 2, 3, 4]


def test_what_redis_loses_after_a_long_outage_is_written_again(
    servers: Callable[..., RedisProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit is young when it is acknowledged, not when it was first tried."""
    seconds = hold_time(monkeypatch)
    server = servers()
    with closing(RedisStore(parse_redis_url(server.url), CALM)) as store:
        store.commit([put_run("run"), batch(b"a")])
        server.kill()
        writes: list[Write] = [batch(b"b")]
        with pytest.raises(StoreError):
            commit_all(store, writes, ())
        seconds[0] += 10 * redis_log.KEPT_SECONDS
        server.start()
        set_back(server, tmp_path, lambda: commit_all(store, writes, ()))
        assert batches(store) == [b"a"]
        assert commit_all(store, [batch(b"c")], ()) == {}
        assert batches(store) == [b"a", b"b", b"c"]


@pytest.mark.parametrize("next_run", ["run", "other"])
def test_a_deletion_that_redis_has_lost_is_written_again(
    servers: Callable[..., RedisProcess], tmp_path: Path, next_run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new run of that name does not get what the deleted one had."""
    hold_time(monkeypatch)
    server = servers()
    with closing(RedisStore(parse_redis_url(server.url), CALM)) as store, server.client() as client:
        store.commit([put_run("run"), batch(b"old")])
        set_back(server, tmp_path, lambda: commit_all(store, [DeleteRun(run="run")], ()))
        assert batches(store) == [b"old"]
        assert commit_all(store, [put_run(next_run)], ()) == {}
        assert [row.name for row in store.runs()] == [next_run]
        assert client.smembers(RUNS) == {next_run.encode()}
        assert commit_all(store, [put_run("run"), batch(b"new")], ()) == {}
        assert batches(store) == [b"new"]


@pytest.mark.parametrize("looks", [False, True])
def test_a_run_may_come_again_when_the_mark_of_its_deletion_has_gone(
    stores: Callable[..., RedisStore],
    redis_server: RedisProcess,
    looks: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = stores()
    caplog.clear()
    store.commit([put_run("run"), batch(b"old")])
    store.commit([DeleteRun(run="run")])
    with redis_server.client() as client:
        client.delete(key("run", "commits"))
        if looks:
            client.client_kill_filter(_type="normal")
            store.commit([put_run("other")])
    assert commit_all(store, [put_run("run"), batch(b"new")], ()) == {}
    assert batches(store) == [b"new"]
    assert warned(caplog) == []


def test_a_deleted_run_is_forgotten_in_time(
    stores: Callable[..., RedisStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else another server that is given a run of that name would be a stranger for ever."""
    seconds = hold_time(monkeypatch)
    store = stores()
    store.commit([put_run("run")])
    store.commit([DeleteRun(run="run")])
    stores().commit([put_run("run"), batch(b"a")])
    assert commit_all(store, [batch(b"b")], ()).keys() == {"run"}
    store.take_up("run")
    store.commit([DeleteRun(run="run")])
    seconds[0] += 2 * redis_log.KEPT_SECONDS
    store.commit([put_run("other")])
    stores().commit([put_run("run"), batch(b"c")])
    assert commit_all(store, [batch(b"d")], ()) == {}
    assert batches(store) == [b"c", b"d"]


def hold_time(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the log of commits takes for the time, in seconds; the machine of the test may be slow."""
    seconds = [0.0]
    monkeypatch.setattr(redis_log, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    return seconds


def set_back(server: RedisProcess, tmp_path: Path, meanwhile: Callable[[], object]) -> None:
    """Redis dies, and comes again as it was before `meanwhile`."""
    folder = Path(server.settings["dir"])
    shutil.copytree(folder / "appendonlydir", tmp_path / "earlier")
    meanwhile()
    server.kill()
    shutil.rmtree(folder / "appendonlydir")
    shutil.copytree(tmp_path / "earlier", folder / "appendonlydir")
    server.start()


@pytest.mark.slow
def test_a_write_is_acknowledged_when_the_replicas_have_it(
    servers: Callable[..., RedisProcess], stores: Callable[..., RedisStore]
) -> None:
    master = servers()
    replica = servers(replicaof=f"127.0.0.1 {master.port}", repl_diskless_sync_delay="0")
    with replica.client() as client:
        wait_until(lambda: client.info("replication")["master_link_status"] == "up")
    store = until(lambda: stores(master.url, RedisOptions(timeout_seconds=3, wait_replicas=1)))
    writes: list[Write] = [put_run("run"), batch(b"a")]
    until(lambda: commit_all(store, writes, ()))

    def not_acknowledged() -> None:
        with pytest.raises(StoreError, match="written, but 0 of 1 replicas have it"):
            commit_all(store, writes, ())

    with replica.frozen():
        for content in (b"b", b"c"):
            writes.append(batch(content))
            until(not_acknowledged)  # else it says that the reply came too late, where the machine is slow
    assert until(lambda: commit_all(store, writes, ())) == {}
    assert batches(stores(master.url)) == [b"a", b"b", b"c"]


def test_who_we_are_to_redis(servers: Callable[..., RedisProcess], tmp_path: Path) -> None:
    server = servers()
    with server.client() as client:
        client.acl_setuser(
            "pathwatch",
            enabled=True,
            passwords=["+right"],
            keys=["pathwatch:*"],
            categories=["+@all", "-@dangerous"],
        )
        client.acl_setuser("default", enabled=False, reset_passwords=True)
    url = server.url.replace("redis://", "redis://pathwatch:{}@")
    for wrong in (server.url, url.format("wrong")):
        with pytest.raises(StoreError, match="cannot ask Redis at redis://127") as refused:
            RedisStore(parse_redis_url(wrong), CALM)
        assert "invalid username-password pair" in str(refused.value) or "authenticate" in str(refused.value)
        assert "wrong" not in str(refused.value)
    file = tmp_path / "password"
    file.write_text("right\n")
    options = RedisOptions(password=Secret(file=file))
    with closing(RedisStore(parse_redis_url(url.replace(":{}", "")), options)) as store:
        store.commit([put_run("run"), batch(b"a")])
        assert batches(store) == [b"a"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"appendonly": "no"}, "appendonly is off: what is acknowledged is lost when it ends"),
        ({"appendfsync": "everysec"}, "appendfsync is everysec"),
        ({"maxmemory": "100mb", "maxmemory_policy": "allkeys-lru"}, "it may drop runs when memory is full"),
        ({}, ""),
    ],
)
def test_what_would_lose_data_is_said_at_the_start(
    servers: Callable[..., RedisProcess],
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, str],
    says: str,
) -> None:
    server = servers(**settings)
    with caplog.at_level(logging.WARNING):
        RedisStore(parse_redis_url(server.url), CALM).close()
    said = warned(caplog)
    assert any(says in text for text in said) if says else not said


def test_memory_is_what_redis_says(servers: Callable[..., RedisProcess], fill: Fill) -> None:
    server = servers(maxmemory="64mb")
    with closing(RedisStore(parse_redis_url(server.url), CALM)) as store:
        before = store.storage()
        fill(store, range(20), size=20_000)
        after = store.storage()
        assert after.size_bytes == 64 << 20
        assert after.database_bytes > before.database_bytes + 20 * 20_000
        assert after.free_bytes == after.size_bytes - after.database_bytes
        assert after.snapshot_taken_at is None


def test_full_memory_stops_acknowledgements_alone(servers: Callable[..., RedisProcess], fill: Fill) -> None:
    server = servers()
    with closing(RedisStore(parse_redis_url(server.url), CALM)) as store, server.client() as client:
        fill(store, range(3))
        client.config_set("maxmemory", "1mb")
        writes: list[Write] = [batch(b"waits")]
        with pytest.raises(StoreError, match="maxmemory") as refused:
            commit_all(store, writes, ())
        assert not isinstance(refused.value, UnstorableError)
        assert len(list(store.windows("run"))) == 3
        client.config_set("maxmemory", "64mb")
        commit_all(store, writes, ())
        assert batches(store)[-1] == b"waits"


def test_a_node_of_a_cluster_is_not_taken_for_a_server(servers: Callable[..., RedisProcess]) -> None:
    server = servers(cluster_enabled="yes", cluster_port=str(lasting_port()))
    with pytest.raises(StoreError, match=r"is a node of a cluster: write redis\+cluster://"):
        RedisStore(parse_redis_url(server.url), CALM)


def test_what_is_larger_than_one_value_comes_in_pieces(
    stores: Callable[..., RedisStore], monkeypatch: pytest.MonkeyPatch, fill: Fill
) -> None:
    from pathwatch.server.store import redis_writes

    monkeypatch.setattr(redis_writes, "PIECE_BYTES", 100)
    store = stores()
    fill(store, range(2), size=250)
    pieces = [row.observations for row in store.observations("run")]
    assert [len(piece) for piece in pieces] == [250, 250]
    assert pieces == [row.evidence for row in store.windows("run")]
