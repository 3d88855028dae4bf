"""The store that a server is configured with."""

from __future__ import annotations

from contextlib import AsyncExitStack

from pathwatch.server.config import ServerConfig
from pathwatch.server.config.redis import is_redis_url, parse_redis_url
from pathwatch.server.store.interface import Store
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.server.store.sqlite_folder import FolderLock, make_folder


def open_store(config: ServerConfig, closing: AsyncExitStack) -> Store:
    """The store; it and the data folder are this server's until `closing` closes them. Raises StoreError."""
    if not is_redis_url(config.store):
        sqlite = SqliteStore(config.data, snapshot_seconds=60 * config.snapshot_minutes)
        closing.callback(sqlite.close)
        return sqlite
    from pathwatch.server.store.redis import RedisStore  # needs what only the extra `redis` installs

    # What is no state of runs stays in the folder: how far webhooks are.
    make_folder(config.data)
    closing.callback(FolderLock(config.data).close)
    redis = RedisStore(parse_redis_url(config.store), config.redis)
    closing.callback(redis.close)
    return redis
