"""The store that a server is configured with."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

from pathwatch.server.config import ServerConfig
from pathwatch.server.config.redis import is_redis_url, parse_redis_url
from pathwatch.server.store.interface import Store
from pathwatch.server.store.leases import Leases
from pathwatch.server.store.sqlite import SqliteStore
from pathwatch.server.store.sqlite_folder import FolderLock, make_folder


@dataclass(frozen=True, slots=True)
class Opened:
    """A store that is in use."""

    store: Store
    leases: Leases | None
    """Of the runs in it, without which none of them is written; None = all of them are this server's."""


def open_store(config: ServerConfig, closing: AsyncExitStack) -> Opened:
    """The store; it and the data folder are this server's until `closing` closes them. Raises StoreError."""
    if not is_redis_url(config.store):
        sqlite = SqliteStore(config.data, snapshot_seconds=60 * config.snapshot_minutes)
        closing.callback(sqlite.close)
        return Opened(sqlite, None)
    # They need what only the extra `redis` installs.
    from pathwatch.server.store.redis import RedisStore
    from pathwatch.server.store.redis_leases import RedisLeases

    # What is no state of runs stays in the folder: how far webhooks are.
    make_folder(config.data)
    closing.callback(FolderLock(config.data).close)
    address = parse_redis_url(config.store)
    leases = None
    if config.shard:
        leases = RedisLeases(address, config.redis, own=config.shard, seconds=config.lease_seconds)
        closing.callback(leases.close)
    redis = RedisStore(address, config.redis, fence=leases.fence if leases else None)
    closing.callback(redis.close)
    return Opened(redis, leases)
