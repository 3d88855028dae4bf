"""More than one server: a cluster, a server that sentinels name, TLS on the way."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme
from ports import lasting_port
from redis import Sentinel
from redis_process import RedisProcess, until

from pathwatch.server.config import RedisOptions
from pathwatch.server.config.redis import parse_redis_url
from pathwatch.server.store import redis_log
from pathwatch.server.store.interface import FencedError, StoreError
from pathwatch.server.store.redis import RedisStore
from pathwatch.server.store.redis_leases import RedisLeases
from pathwatch.server.store.rows import DeleteRun, Write

Fill = Callable[..., None]
CALM = RedisOptions(timeout_seconds=30)
RUNS = tuple(f"run-{number}" for number in range(8))
SECONDS = 45.0


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


def cluster(servers: Callable[..., RedisProcess]) -> tuple[str, list[RedisProcess]]:
    """URL and masters of a cluster, which is ready."""
    ports = [str(lasting_port()) for _ in range(3)]
    masters = [
        servers(cluster_enabled="yes", cluster_node_timeout="5000", cluster_port=port) for port in ports
    ]
    nodes = [f"127.0.0.1:{master.port}" for master in masters]
    create = ["redis-cli", "--cluster", "create", *nodes, "--cluster-yes"]
    subprocess.run(create, check=True, capture_output=True, timeout=SECONDS)
    url = f"redis+cluster://{','.join(nodes[:2])}"

    until(lambda: require(all(master.in_cluster() for master in masters)))
    return url, masters


@pytest.mark.slow
def test_a_cluster_of_three_masters(servers: Callable[..., RedisProcess], fill: Fill) -> None:
    url, masters = cluster(servers)
    with closing(RedisStore(parse_redis_url(url), CALM)) as store:
        for run in RUNS:
            fill(store, range(3), run=run)
        with closing(RedisStore(parse_redis_url(url), CALM)) as reader:
            assert sorted(row.name for row in reader.runs()) == sorted(RUNS)
            for run in RUNS:
                assert [row.step for row in reader.windows(run)] == [0, 1, 2]
                assert [row.revision for row in reader.history(run).signals] == [1, 2, 3]
        keys_held = set(keys_of(masters[0]))
        holders = [len(set(keys_of(master))) for master in masters]
        assert sum(holders) == len(RUNS), "each run is on one node"
        assert all(holders), "of eight runs each has some"
        assert store.storage().database_bytes > 0
        masters[0].kill()
        lost = next(iter(keys_held))
        with pytest.raises(StoreError):
            fill(store, range(3, 4), run=lost)
        masters[0].start()
        for run in RUNS:
            until(lambda run=run: fill(store, range(3, 5), run=run))  # type: ignore[misc]
            assert [row.step for row in store.windows(run)] == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_leases_of_runs_on_several_nodes(servers: Callable[..., RedisProcess], fill: Fill) -> None:
    url, masters = cluster(servers)
    address = parse_redis_url(url)
    with (
        closing(RedisLeases(address, CALM, own="a:1", seconds=250)) as a,
        closing(RedisLeases(address, CALM, own="b:1", seconds=250)) as b,
        closing(RedisStore(address, CALM, fence=a.fence)) as store,
    ):
        for run in RUNS:
            assert a.take(run) is None
            fill(store, range(1), run=run)
            assert b.take(run) is not None
        assert a.renew() == {}
        gone = {next(keys_of(master)) for master in masters}
        assert len(gone) == 3, "one of each node"
        a.release(gone)
        until(lambda: require(all(b.take(run) is None for run in gone)))
        with pytest.raises(FencedError):
            store.commit([DeleteRun(run=run) for run in gone])
        assert {row.name for row in store.runs()} == set(RUNS)
        # A new life of `a` takes what the first one has; that hears of it by its next renewal.
        with closing(RedisLeases(address, CALM, own="a:1", seconds=250)) as again:
            for run in a.held:
                assert again.take(run) is None
            lost = a.renew()
            assert lost.keys() == set(RUNS) - gone
            assert {held.owner for held in lost.values()} == {"a:1"}
            assert set(b.held) == gone
            assert b.renew() == again.renew() == {}


def require(is_so: bool) -> None:
    assert is_so


def keys_of(master: RedisProcess) -> Iterator[str]:
    """Runs that a node has anything of."""
    with master.client() as client:
        for name in client.keys("pathwatch:{*"):
            yield name.decode().partition("{")[2].partition("}")[0]


@pytest.mark.slow
def test_another_master_that_sentinels_name(
    servers: Callable[..., RedisProcess], tmp_path: Path, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_log, "KEPT_SECONDS", 600.0)  # the machine of the test may be slow
    first = servers()
    second = servers(replicaof=f"127.0.0.1 {first.port}", repl_diskless_sync_delay="0")
    with second.client() as client:
        until(lambda: require(client.info("replication")["master_link_status"] == "up"))
    port = lasting_port()
    settings = tmp_path / "sentinel.conf"
    settings.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor main 127.0.0.1 {first.port} 1\n"
        "sentinel down-after-milliseconds main 3000\nsentinel failover-timeout main 5000\n"
    )
    with (tmp_path / "log").open("wb") as log:
        sentinel = subprocess.Popen(["redis-sentinel", str(settings)], stdout=log, stderr=log)
    try:
        asking = Sentinel([("127.0.0.1", port)], socket_timeout=2)  # type: ignore[no-untyped-call]

        def replica_known() -> None:
            with socket.create_connection(("127.0.0.1", port), 1):
                assert asking.discover_slaves("main")

        deadline = time.monotonic() + SECONDS
        while True:
            try:
                replica_known()
                break
            except (OSError, AssertionError):
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        url = parse_redis_url(f"redis+sentinel://127.0.0.1:{port}/main")
        with closing(RedisStore(url, CALM)) as store:
            fill(store, range(5))
            # What the replica has not heard of yet goes with the master: it is written again.
            with second.frozen():
                fill(store, range(5, 8))
                first.kill()
            made: list[list[Write]] = []
            fill(SimpleNamespace(commit=made.append), range(8, 9))
            # The very same writes each time: a try may be applied though its reply does not come.
            until(lambda: store.commit(made[0]))
            with second.client() as client:
                assert client.info("replication")["role"] == "master"
            assert [row.step for row in store.windows("run")] == list(range(9))
            assert [row.step for row in store.batches("run")] == [9]
    finally:
        sentinel.kill()
        sentinel.wait()


def test_tls_with_a_certificate_of_ours(tmp_path: Path, fill: Fill) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("server", "client"):
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    tls_port = lasting_port()
    server = RedisProcess(
        tmp_path / "redis",
        tls_port=str(tls_port),
        tls_cert_file=str(tmp_path / "server.pem"),
        tls_key_file=str(tmp_path / "server.key"),
        tls_ca_cert_file=str(tmp_path / "ca.pem"),
    )
    url = parse_redis_url(f"rediss://127.0.0.1:{tls_port}")
    ours = {"cert": tmp_path / "client.pem", "key": tmp_path / "client.key"}
    try:
        with closing(RedisStore(url, replace(CALM, ca=tmp_path / "ca.pem", **ours))) as store:
            fill(store, range(2))
            assert [row.step for row in store.windows("run")] == [0, 1]
        with pytest.raises(StoreError, match="certificate verify failed"):
            RedisStore(url, replace(CALM, **ours))
        with pytest.raises(StoreError, match="cannot ask Redis"):
            RedisStore(url, replace(CALM, ca=tmp_path / "ca.pem"))
    finally:
        server.kill()
