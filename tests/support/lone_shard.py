"""A server that shares a Redis, so far with nobody, and has no run: for what only such servers publish."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis_process import RedisProcess

from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig


@contextmanager
def lone_shard(folder: Path) -> Iterator[BackgroundServer]:
    """Both have what they keep in `folder`."""
    redis = RedisProcess(folder / "redis", appendfsync="no")
    try:
        config = ServerConfig(data=folder / "data", store=redis.url, shard="shard.example:50051")
        with BackgroundServer(config) as shard:
            yield shard
    finally:
        redis.kill()
