"""Leases of runs: several servers ask one Redis for them, stop, are paused, and Redis forgets its newest."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from redis_process import RedisProcess, until

from pathwatch.server.config import RedisOptions
from pathwatch.server.config.redis import parse_redis_url
from pathwatch.server.store import redis_leases, redis_log
from pathwatch.server.store.interface import FencedError, StoreError
from pathwatch.server.store.redis import RedisStore
from pathwatch.server.store.redis_keys import key
from pathwatch.server.store.redis_leases import RedisLeases
from pathwatch.server.store.rows import BatchRow, DeleteRun, PutBatch

Fill = Callable[..., None]
OpenLeases = Callable[..., RedisLeases]
CALM = RedisOptions(timeout_seconds=30)
LONG, SHORT = 250.0, 0.2


@pytest.fixture
def open_leases(redis_server: RedisProcess) -> Iterator[OpenLeases]:
    """Those of a server, on an empty Redis; by default they last longer than any test."""
    opened = ExitStack()
    with redis_server.client() as client:
        client.flushall()

    def open_leases(own: str, seconds: float = LONG, url: str = redis_server.url) -> RedisLeases:
        leases = RedisLeases(parse_redis_url(url), CALM, own=own, seconds=seconds)
        return opened.enter_context(closing(leases))

    with opened:
        yield open_leases


@pytest.fixture
def asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_leases, "REFUSAL_SECONDS", 0.0)


@pytest.fixture
def lease_of(redis_server: RedisProcess) -> Callable[[str], dict[str, str]]:
    def lease_of(run: str) -> dict[str, str]:
        with redis_server.client(decode_responses=True) as client:
            found: dict[str, str] = client.hgetall(key(run, "lease"))
        return found

    return lease_of


def put_batch(content: bytes, run: str = "run") -> PutBatch:
    return PutBatch(row=BatchRow(run=run, attempt=0, step=1, batch=content))


def batches(store: RedisStore, run: str = "run") -> list[bytes]:
    return [row.batch for row in store.batches(run)]


def test_a_run_is_one_servers(open_leases: OpenLeases) -> None:
    a, b = open_leases("a:1"), open_leases("b:1")
    assert a.take("run") is None
    assert a.take("run") is None
    refused = b.take("run")
    assert refused is not None
    assert refused.owner == "a:1"
    assert 0 < refused.seconds <= LONG
    assert b.take("other") is None
    assert (set(a.held), set(b.held)) == ({"run"}, {"other"})
    assert a.renew() == b.renew() == {}


def test_of_many_that_ask_at_once_one_has_it(open_leases: OpenLeases) -> None:
    servers = [open_leases(f"{name}:1") for name in "abcdef"]
    begin = threading.Barrier(len(servers))
    taken: list[tuple[str, str]] = []

    def take(leases: RedisLeases) -> None:
        begin.wait(30)
        for number in range(20):
            if leases.take(f"run-{number}") is None:
                taken.append((f"run-{number}", leases.own))

    threads = [threading.Thread(target=take, args=(leases,)) for leases in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(run for run, _ in taken) == sorted(f"run-{number}" for number in range(20))
    for leases in servers:
        assert set(leases.held) == {run for run, own in taken if own == leases.own}


@pytest.mark.usefixtures("asked_each_time")
def test_what_is_let_go_of_is_free_at_once(
    open_leases: OpenLeases, lease_of: Callable[[str], dict[str, str]]
) -> None:
    a, b = open_leases("a:1"), open_leases("b:1")
    for run in ("one", "two", "kept"):
        a.take(run)
    assert b.take("one") is not None
    a.release(["one", "two", "never held"])
    assert set(a.held) == {"kept"}
    assert a.fence("one") is None
    assert (b.take("one"), b.take("two")) == (None, None)
    assert b.take("kept") is not None
    assert lease_of("one")["owner"] == "b:1"
    assert lease_of("never held") == {}
    # That it is held no more is known, so that nobody is told that it is lost.
    assert a.renew() == {}


@pytest.mark.usefixtures("asked_each_time")
def test_a_lease_that_is_not_renewed_runs_out(open_leases: OpenLeases) -> None:
    a, b = open_leases("a:1", SHORT), open_leases("b:1")
    a.take("run")
    until(lambda: must(b.take("run") is None))
    (lost,) = a.renew().items()
    assert lost[0] == "run"
    assert lost[1].owner == "b:1"
    assert 0 < lost[1].seconds <= LONG
    assert set(a.held) == set()
    assert a.renew() == {}


@pytest.mark.usefixtures("asked_each_time")
def test_a_lease_that_is_renewed_does_not_run_out(
    open_leases: OpenLeases, redis_server: RedisProcess
) -> None:
    a, b = open_leases("a:1"), open_leases("b:1")
    a.take("run")
    for _ in range(3):
        set_lease(redis_server, "run", until=now(redis_server) + 60_000)
        assert a.renew() == {}
        refused = b.take("run")
        assert refused is not None
        assert refused.seconds > 100
    # Also where it has run out, and nobody has taken it.
    set_lease(redis_server, "run", until=1)
    assert a.renew() == {}
    assert b.take("run") is not None


def test_a_server_that_starts_anew_has_its_runs_at_once(open_leases: OpenLeases) -> None:
    former, new = open_leases("a:1"), open_leases("a:1")
    former.take("run")
    assert new.take("run") is None
    assert former.renew().keys() == {"run"}
    assert new.renew() == {}


def test_the_number_of_an_epoch_grows_with_each_taking(
    open_leases: OpenLeases, redis_server: RedisProcess
) -> None:
    seen = []
    for number in range(4):
        leases = open_leases(f"{number}:1")
        assert leases.take("run") is None
        fence = leases.fence("run")
        assert fence is not None
        assert fence.owner == leases.own
        seen.append(fence.epoch.split("-"))
        assert leases.epoch("run") == number + 1
        if number % 2:
            leases.release(["run"])
            assert leases.epoch("run") is None
        else:
            set_lease(redis_server, "run", until=1)
    assert [int(number) for number, _ in seen] == [1, 2, 3, 4]
    assert len({token for _, token in seen}) == 4


def test_a_server_that_is_asked_again_and_again_asks_redis_once(
    open_leases: OpenLeases, redis_server: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_leases, "REFUSAL_SECONDS", 600.0)
    a, b = open_leases("a:1"), open_leases("b:1")
    a.take("run")
    refused = b.take("run")
    assert refused is not None
    with redis_server.client() as client:
        client.config_resetstat()
        for _ in range(50):
            again = b.take("run")
            assert again is not None
            assert again.owner == "a:1"
            assert again.seconds <= refused.seconds
        assert "cmdstat_eval" not in client.info("commandstats")


@pytest.mark.slow
def test_what_was_refused_is_not_remembered_for_ever(
    open_leases: OpenLeases, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = open_leases("a:1"), open_leases("b:1")
    a.take("run")
    assert b.take("run") is not None
    a.release(["run"])
    until(lambda: must(b.take("run") is None))
    # Nor longer than the lease lasts.
    monkeypatch.setattr(redis_leases, "REFUSAL_SECONDS", 600.0)
    short = open_leases("short:1", SHORT)
    short.take("brief")
    b.take("brief")
    until(lambda: must(b.take("brief") is None))


def test_what_a_former_owner_writes_is_refused(
    open_leases: OpenLeases, redis_server: RedisProcess, fill: Fill
) -> None:
    a, b = open_leases("a:1"), open_leases("b:1")
    with closing(open_store(redis_server, a)) as old, closing(open_store(redis_server, b)) as new:
        a.take("run")
        fill(old, range(2))
        set_lease(redis_server, "run", until=1)
        assert b.take("run") is None
        # `a` has heard of nothing yet.
        with pytest.raises(FencedError, match=r"its lease has epoch 2-\w+, of b:1") as refused:
            fill(old, range(2, 3))
        assert refused.value.owner == "b:1"
        new.take_up("run")
        fill(new, range(2, 4))
        with pytest.raises(FencedError):
            fill(old, range(2, 3))
        assert a.renew().keys() == {"run"}
        old.let_go("run")
        with pytest.raises(FencedError, match="is not this server's now"):
            fill(old, range(2, 3))
        assert [row.step for row in new.windows("run")] == [0, 1, 2, 3]
        assert [row.step for row in new.batches("run")] == [4]


@pytest.mark.usefixtures("asked_each_time")
@pytest.mark.parametrize(
    "left",
    [
        {},
        {"epoch": "1-let-go-of", "owner": "", "until": 10**14},
        {"epoch": "1-run-out", "owner": "c:1", "until": 1},
        {"epoch": "1-former-life", "owner": "a:1", "until": 10**14},
    ],
    ids=lambda left: left.get("epoch", "none"),
)
def test_a_lease_that_redis_has_lost_is_put_back_when_it_is_renewed(
    open_leases: OpenLeases,
    redis_server: RedisProcess,
    lease_of: Callable[[str], dict[str, str]],
    left: dict[str, str | int],
) -> None:
    """As after a failover to a replica that lagged behind."""
    a, b = open_leases("a:1"), open_leases("b:1")
    b.take("run")
    b.release(["run"])
    a.take("run")
    mine = lease_of("run")["epoch"]
    set_back(redis_server, "run", left)
    assert a.renew() == {}
    assert lease_of("run").items() >= {"epoch": mine, "owner": "a:1"}.items()
    assert b.take("run") is not None


def test_a_lease_that_is_another_s_by_now_is_not_taken_back(
    open_leases: OpenLeases, redis_server: RedisProcess, lease_of: Callable[[str], dict[str, str]], fill: Fill
) -> None:
    """Redis has lost so many takings that a later one has a lower number."""
    a, b = open_leases("a:1"), open_leases("b:1")
    with closing(open_store(redis_server, a)) as old, closing(open_store(redis_server, b)) as new:
        for _ in range(3):
            a.release(["run"])
            a.take("run")
        fill(old, range(2))
        set_back(redis_server, "run", {})
        assert b.take("run") is None
        new.take_up("run")
        fill(new, range(2, 3))
        valid = lease_of("run")
        assert (valid["epoch"][:2], valid["owner"]) == ("1-", "b:1")
        with pytest.raises(FencedError, match="was written by another server"):
            fill(old, range(2, 3))
        assert lease_of("run") == valid
        assert a.renew()["run"].owner == "b:1"
        assert lease_of("run") == valid
        fill(new, range(3, 4))
        assert b.renew() == {}
        assert [row.step for row in new.windows("run")] == [0, 1, 2, 3]


def test_who_wrote_more_than_another_has_since_is_fenced_too(
    open_leases: OpenLeases, redis_server: RedisProcess, lease_of: Callable[[str], dict[str, str]], fill: Fill
) -> None:
    """Redis has lost commits as well: what is there is older, and still another's, not merely set back."""
    a, b = open_leases("a:1"), open_leases("b:1")
    with closing(open_store(redis_server, a)) as old, redis_server.client() as client:
        for _ in range(2):
            a.release(["run"])
            a.take("run")
        for step in range(3):
            fill(old, range(step, step + 1))
        set_back(redis_server, "run", {})
        b.take("run")
        client.set(key("run", "commits"), "2-of-b")
        valid = lease_of("run")
        with pytest.raises(FencedError, match="was written by another server") as refused:
            fill(old, range(3, 4))
        assert refused.value.owner == "b:1"
        assert lease_of("run") == valid


def test_who_lets_go_of_what_is_another_s_by_now_leaves_it_his(
    open_leases: OpenLeases, redis_server: RedisProcess, lease_of: Callable[[str], dict[str, str]]
) -> None:
    a, b = open_leases("a:1"), open_leases("b:1")
    a.take("run")
    a.release(["run"])
    a.take("run")
    set_back(redis_server, "run", {})
    b.take("run")
    valid = lease_of("run")
    a.release(["run"])
    assert lease_of("run") == valid
    assert b.renew() == {}


def test_where_a_former_owner_s_lease_has_come_back_the_next_write_decides(
    open_leases: OpenLeases, redis_server: RedisProcess, lease_of: Callable[[str], dict[str, str]], fill: Fill
) -> None:
    """It has not run out: only the run itself tells that nobody else has written since."""
    a = open_leases("a:1")
    with closing(open_store(redis_server, a)) as store:
        for _ in range(2):
            a.release(["run"])
            a.take("run")
        fill(store, range(2))
        mine = lease_of("run")["epoch"]
        former = {"epoch": "1-former", "owner": "b:1", "until": 10**14}
        set_back(redis_server, "run", former)
        fill(store, range(2, 3))
        assert lease_of("run").items() >= {"epoch": mine, "owner": "a:1"}.items()
        assert a.renew() == {}
        set_back(redis_server, "run", former)
        assert a.renew()["run"].owner == "b:1"
        assert lease_of("run")["epoch"] == "1-former"


def test_of_two_that_took_one_number_the_first_that_redis_still_knows_stays(
    open_leases: OpenLeases, redis_server: RedisProcess
) -> None:
    a, b = open_leases("a:1"), open_leases("b:1")
    a.take("run")
    with redis_server.client() as client:
        client.delete(key("run", "lease"))
    assert b.take("run") is None
    assert a.renew().keys() == {"run"}
    assert b.renew() == {}


def test_the_leases_of_runs_that_are_there_stay_and_of_others_go_in_time(
    open_leases: OpenLeases, redis_server: RedisProcess, fill: Fill
) -> None:
    a = open_leases("a:1")
    with closing(open_store(redis_server, a)) as store, redis_server.client() as client:

        def seconds_left() -> int:
            found: int = client.ttl(key("run", "lease"))
            return found

        a.take("run")
        assert LONG < seconds_left() <= 86400
        fill(store, range(1))
        a.renew()
        assert seconds_left() == -1
        a.release(["run"])
        assert seconds_left() == -1
        a.take("run")
        store.take_up("run")
        store.commit([DeleteRun(run="run")])
        a.release(["run"])
        assert LONG < seconds_left() <= 86400


def test_while_redis_is_away_nothing_is_lost(tmp_path: Path) -> None:
    server = RedisProcess(tmp_path / "redis")
    address = parse_redis_url(server.url)
    try:
        with closing(RedisLeases(address, CALM, own="a:1", seconds=LONG)) as a:
            a.take("run")
            server.kill()
            with pytest.raises(StoreError, match="cannot write to Redis at"):
                a.renew()
            with pytest.raises(StoreError, match="cannot write to Redis at"):
                a.take("other")
            assert set(a.held) == {"run"}
            server.start()
            until(lambda: must(a.renew() == {}))
            server.kill()
            # What is let go of while Redis does not hear it runs out there.
            with pytest.raises(StoreError):
                a.release(["run"])
            assert set(a.held) == set()
            server.start()
            with closing(RedisLeases(address, CALM, own="b:1", seconds=LONG)) as b:
                refused = b.take("run")
                assert refused is not None
                assert refused.owner == "a:1"
    finally:
        server.kill()


def test_what_redis_has_lost_of_a_run_is_written_again_under_its_lease(
    tmp_path: Path, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine failed before an fsync, and lost commits and the lease that they were made under."""
    monkeypatch.setattr(redis_log, "KEPT_SECONDS", 600.0)  # the machine of the test may be slow
    server = RedisProcess(tmp_path / "redis")
    folder = Path(server.settings["dir"]) / "appendonlydir"
    address = parse_redis_url(server.url)
    try:
        with (
            closing(RedisLeases(address, CALM, own="a:1", seconds=LONG)) as a,
            closing(RedisLeases(address, CALM, own="b:1", seconds=LONG)) as b,
            closing(open_store(server, a)) as old,
            closing(open_store(server, b)) as new,
        ):
            a.take("run")
            fill(old, range(2))
            a.release(["run"])
            shutil.copytree(folder, tmp_path / "earlier")
            b.take("run")
            new.take_up("run")
            fill(new, range(2, 4))
            server.kill()
            shutil.rmtree(folder)
            shutil.copytree(tmp_path / "earlier", folder)
            server.start()
            until(lambda: must([row.step for row in new.windows("run")] == [0, 1]))
            fill(new, range(4, 5))
            assert [row.step for row in new.windows("run")] == [0, 1, 2, 3, 4]
            assert a.take("run") is not None
    finally:
        server.kill()


def open_store(server: RedisProcess, leases: RedisLeases) -> RedisStore:
    return RedisStore(parse_redis_url(server.url), CALM, fence=leases.fence)


def set_lease(server: RedisProcess, run: str, **fields: int) -> None:
    with server.client() as client:
        client.hset(key(run, "lease"), mapping=fields)


def set_back(server: RedisProcess, run: str, left: Mapping[str, str | int]) -> None:
    """Redis has this of the lease, and nothing newer."""
    with server.client() as client:
        client.delete(key(run, "lease"))
        if left:
            client.hset(key(run, "lease"), mapping=dict(left))


def now(server: RedisProcess) -> int:
    """Milliseconds since 1970, by Redis's clock."""
    with server.client() as client:
        seconds, micros = client.time()
    return int(seconds * 1000 + micros // 1000)


def must(is_so: bool) -> None:
    assert is_so
