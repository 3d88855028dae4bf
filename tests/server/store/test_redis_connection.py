"""Connections to Redis that are closed while they are read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from redis_process import RedisProcess, until

from pathwatch.server.config import RedisOptions
from pathwatch.server.config.redis import parse_redis_url
from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.redis_connection import RedisConnection


def test_what_is_read_of_a_connection_that_is_being_closed_fails_like_any_read(
    redis_server: RedisProcess,
) -> None:
    """As a page is asked for while a server ends: what reads it meets any error of the library's."""
    connection = RedisConnection(parse_redis_url(redis_server.url), RedisOptions(timeout_seconds=30))

    def is_read() -> None:
        with redis_server.client() as client:
            assert client.info("clients")["blocked_clients"] == 1

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(connection.command, "BLPOP", "nothing", 20)
        until(is_read)
        connection.close()
        with pytest.raises(StoreError, match="cannot read Redis"):
            reading.result(60)
