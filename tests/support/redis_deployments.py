"""Redis as servers that share it find it: one process, one that a sentinel names, a cluster. Each can fail.

What fails has acknowledged more than is left of it, but for the one process, which comes back with all, or
nearly all.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from ports import lasting_port
from redis import RedisCluster, Sentinel
from redis.exceptions import RedisClusterException, RedisError
from redis_process import RedisProcess

SECONDS = 120.0
"""A sentinel that was held up for two seconds does nothing for half a minute."""


def wait(is_so: Callable[[], object]) -> None:
    """Until it is, whatever Redis says before."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            if is_so():
                return
        except (RedisError, RedisClusterException, OSError):
            pass
        assert time.monotonic() < deadline, "Redis is not there in time"
        time.sleep(0.05)


class OneRedis:
    """A context manager, as the others are. Fsyncs each second, as Redis does by default."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[RedisProcess] = []
        self._ending = ExitStack()

    def __enter__(self) -> OneRedis:
        with self._ending:  # all that has started ends if the rest does not come up
            self.redis = self.process()
            self.deploy()
            self._ending = self._ending.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()

    @property
    def url(self) -> str:
        """As `--store` takes it."""
        return self.redis.url

    def client(self) -> Any:
        """Of whichever server has the data now."""
        return self.redis.client()

    def fail(self, tail: Callable[[], None]) -> None:
        """Killed after `tail`, and started again."""
        tail()
        self.redis.kill()
        self.redis.start()

    def deploy(self) -> None:
        """What there is beside the first process."""

    def process(self, **settings: str) -> RedisProcess:
        """One more, that ends with the others."""
        folder = self._folder / f"redis-{len(self._processes)}"
        process = RedisProcess(folder, appendfsync="everysec", repl_diskless_sync_delay="0", **settings)
        self._ending.callback(process.kill)
        self._processes.append(process)
        return process


class _Replicated(OneRedis):
    replica: RedisProcess

    def fail(self, tail: Callable[[], None]) -> None:
        """The replica ends, the master after `tail`; the replica comes back without it, and takes over."""
        self.replica.kill()
        tail()
        self.redis.kill()
        self.replica.start()
        self.take_over()
        wait(lambda: self.role(self.replica) == "master")

    def take_over(self) -> None:
        """Have the replica do what the master did."""

    def in_step(self) -> bool:
        """Whether the replica has all."""
        with self.replica.client() as client:
            return bool(client.info("replication")["master_link_status"] == "up")

    def role(self, process: RedisProcess) -> str:
        """`master` or `slave`."""
        with process.client() as client:
            return str(client.info("replication")["role"])


class SentinelRedis(_Replicated):
    """A master and a replica; a sentinel names the one that is to be talked to.

    It takes nobody for down before it is told to: a master that a busy machine or disk has held up for some
    seconds would be replaced, and then be the one that `fail` takes for the replica.
    """

    def deploy(self) -> None:
        master = f"127.0.0.1 {self.redis.port}"
        self.replica = self.process(replicaof=master)
        self._port = lasting_port()
        settings = self._folder / "sentinel.conf"
        settings.write_text(
            f"port {self._port}\nbind 127.0.0.1\ndir {self._folder}\nsentinel monitor main {master} 1\n"
            "sentinel down-after-milliseconds main 600000\nsentinel failover-timeout main 5000\n"
        )
        with (self._folder / "sentinel.log").open("wb") as log:
            sentinel = subprocess.Popen(["redis-sentinel", str(settings)], stdout=log, stderr=log)
        self._ending.callback(sentinel.wait)
        self._ending.callback(sentinel.kill)
        self._asking = Sentinel([("127.0.0.1", self._port)], socket_timeout=2)  # type: ignore[no-untyped-call]
        wait(lambda: self.in_step() and self._asking.discover_slaves("main"))

    def take_over(self) -> None:
        (sentinel,) = self._asking.sentinels
        wait(lambda: sentinel.sentinel_set("main", "down-after-milliseconds", 3000))

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self._port}/main"

    def client(self) -> Any:
        return self._asking.master_for("main", socket_timeout=SECONDS)  # type: ignore[no-untyped-call]


class ClusterRedis(_Replicated):
    """Three masters; the first has a replica, which takes over when it is told to alone."""

    def deploy(self) -> None:
        others = [self.process() for _ in range(2)]
        nodes = [f"127.0.0.1:{node.port}" for node in (self.redis, *others)]
        self._url = f"redis+cluster://{','.join(nodes[1:])}"
        self._cli("create", *nodes, "--cluster-yes")
        wait(lambda: all(self._knows(node, 3) and node.in_cluster() for node in (self.redis, *others)))
        with self.redis.client() as client:
            self._name = client.execute_command("CLUSTER MYID").decode()
        self.replica = self.process(cluster_replica_no_failover="yes")
        added = f"127.0.0.1:{self.replica.port}"
        self._cli("add-node", added, nodes[0], "--cluster-slave", "--cluster-master-id", self._name)
        wait(lambda: self.in_step() and all(self._knows(node, 4) for node in self._processes))

    @property
    def url(self) -> str:
        return self._url

    def client(self) -> Any:
        return RedisCluster.from_url(self._url.replace("redis+cluster", "redis").partition(",")[0])

    def take_over(self) -> None:
        wait(lambda: self._knows(self.replica, 4))
        with self.replica.client() as client:
            client.execute_command("CLUSTER FAILOVER", "TAKEOVER")

    def process(self, **settings: str) -> RedisProcess:
        return super().process(
            cluster_enabled="yes", cluster_node_timeout="5000", cluster_port=str(lasting_port()), **settings
        )

    def _cli(self, *call: str) -> None:
        done = subprocess.run(
            ["redis-cli", "--cluster", *call], capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _knows(self, node: RedisProcess, nodes: int) -> bool:
        with node.client() as client:
            return len(client.execute_command("CLUSTER NODES")) == nodes
