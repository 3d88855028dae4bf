"""The store that a configuration names, and whether it is shared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from redis_process import RedisProcess

from pathwatch.server.config import ServerConfig
from pathwatch.server.store.interface import FencedError, StoreError
from pathwatch.server.store.opening import Opened, open_store

Fill = Callable[..., None]


@pytest.fixture
def url(redis_server: RedisProcess) -> str:
    """Of an empty Redis."""
    with redis_server.client() as client:
        client.flushall()
    return redis_server.url


@asynccontextmanager
async def opened(config: ServerConfig) -> AsyncIterator[Opened]:
    async with AsyncExitStack() as closing:
        yield open_store(config, closing)


@pytest.mark.parametrize("engine", ["sqlite", "redis"])
def test_a_server_alone_writes_every_run(tmp_path: Path, url: str, fill: Fill, engine: str) -> None:
    config = ServerConfig(data=tmp_path, store=url if engine == "redis" else "sqlite")

    async def serve() -> None:
        async with opened(config) as mine:
            assert mine.leases is None
            fill(mine.store, range(2))
            with pytest.raises(StoreError, match="another pathwatch server uses"):
                async with opened(config):
                    pass
        async with opened(config) as mine:
            assert [row.step for row in mine.store.windows("run")] == [0, 1]

    asyncio.run(serve())


def test_one_of_several_writes_the_runs_that_it_has_taken(tmp_path: Path, url: str, fill: Fill) -> None:
    def config(name: str) -> ServerConfig:
        return ServerConfig(data=tmp_path / name, store=url, shard=f"{name}:7788", lease_seconds=250)

    async def serve() -> None:
        async with opened(config("first")) as first, opened(config("second")) as second:
            assert first.leases is not None
            assert second.leases is not None
            assert (first.leases.own, first.leases.seconds) == ("first:7788", 250)
            for server in (first, second):
                with pytest.raises(FencedError, match="is not this server's now"):
                    fill(server.store, range(1))
                server.store.let_go("run")
            assert first.leases.take("run") is None
            fill(first.store, range(2))
            refused = second.leases.take("run")
            assert refused is not None
            assert refused.owner == "first:7788"
            with pytest.raises(FencedError):
                fill(second.store, range(2, 3))
            assert [row.step for row in second.store.windows("run")] == [0, 1]

    asyncio.run(serve())
