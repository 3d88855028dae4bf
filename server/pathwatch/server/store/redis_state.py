"""How a Redis does: its memory, and whether what it answers outlives it."""

from __future__ import annotations

import logging
from typing import Any

from redis.exceptions import ResponseError

from pathwatch.server.store.answers import StorageInfo
from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.redis_connection import RedisConnection

log = logging.getLogger("pathwatch.server")


def storage_info(connection: RedisConnection) -> StorageInfo:
    """Memory of all servers that take writes. Raises StoreError."""
    used = size = 0
    for memory in connection.each_node(lambda node: node.execute_command("INFO", "memory")):
        used += int(memory["used_memory"])
        size += int(memory["maxmemory"] or memory["total_system_memory"])
    return StorageInfo(
        free_bytes=max(0, size - used), size_bytes=size, database_bytes=used, snapshot_taken_at=None
    )


def check_servers(connection: RedisConnection, *, is_cluster: bool) -> None:
    """Says in the log what would lose acknowledged data. Raises StoreError where Redis cannot be used so."""
    for settings in connection.each_node(_settings):
        if settings.get("cluster_enabled") and not is_cluster:
            raise StoreError(
                f"Redis at {connection.address} is a node of a cluster: write redis+cluster:// (or "
                "rediss+cluster://) in the URL"
            )
        for warning in _warnings(settings):
            log.warning("Redis at %s: %s", connection.address, warning)


def _settings(node: Any) -> dict[str, Any]:
    """What the server says of itself; less where its access rules forbid that."""
    found: dict[str, Any] = {}
    node.execute_command("PING")
    try:
        found.update(node.execute_command("INFO", "cluster"))
        found.update(node.execute_command("INFO", "persistence"))
        for name in ("appendfsync", "maxmemory-policy", "maxmemory"):
            found.update(node.config_get(name))
    except ResponseError:
        log.info("Redis does not tell all of its configuration: what it promises is not checked")
    return found


def _warnings(settings: dict[str, Any]) -> list[str]:
    warnings = []
    if settings.get("aof_enabled") == 0:
        warnings.append(
            "appendonly is off: what is acknowledged is lost when it ends; set `appendonly yes`, and "
            "`appendfsync always` where nothing may be lost"
        )
    elif settings.get("appendfsync", "always") != "always":
        warnings.append(
            f"appendfsync is {settings['appendfsync']}: when its machine fails, acknowledged data of up to a "
            "second or two is written again only while this server lives; `appendfsync always` loses nothing"
        )
    policy = settings.get("maxmemory-policy", "noeviction")
    if policy.startswith("allkeys") and settings.get("maxmemory", "0") != "0":
        warnings.append(f"maxmemory-policy is {policy}: it may drop runs when memory is full; set noeviction")
    return warnings
