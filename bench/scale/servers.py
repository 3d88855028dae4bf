"""A Redis and shards that share it, in processes of their own on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ports import lasting_port
from redis_process import RedisProcess

from bench.sidecar import Sidecar

_FLEET = 5000
LIMITS = [f"{name}={_FLEET}" for name in ("connections", "streams", "streams_per_run")]
"""Room for thousands of ranks on one shard."""


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisProcess]:
    """As most are run: what is written is on disk a second later."""
    server = RedisProcess(folder / "redis", appendfsync="everysec")
    try:
        yield server
    finally:
        server.kill()


def shard(
    folder: Path, name: str, redis: RedisProcess, *, core: int | None = None, lease_seconds: float = 10
) -> Sidecar:
    """A shard that has not been started; `core`: the only one it may use."""
    address = f"127.0.0.1:{lasting_port()}"
    options = ["--store", redis.url, "--shard", address, "--lease-seconds", str(lease_seconds)]
    return Sidecar(folder / name, limits=LIMITS, options=options, listen=address, core=core)


def used_bytes(redis: RedisProcess) -> int:
    """What Redis holds for its data and itself, without what it holds for connections and for its file."""
    with redis.client() as client:
        memory = client.info("memory")
    return int(memory["used_memory"] - memory["mem_clients_normal"] - memory["mem_aof_buffer"])
