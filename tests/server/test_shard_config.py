"""What a server is told that shares its Redis with others, and how it is told that that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pathwatch.server.config import ServerConfig, check

REDIS = "redis://cache"


@pytest.mark.parametrize("shard", ["a.example:50051", "10.0.0.7:1", "[fd00::7]:50051", "pod-0.svc_x:2"])
def test_where_it_is_reached(tmp_path: Path, shard: str) -> None:
    assert check(ServerConfig(data=tmp_path, store=REDIS, shard=shard, lease_seconds=2)) == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"shard": "a:1", "store": "sqlite"}, "shard: only with the URL of a Redis as store"),
        ({"shard": "a"}, "shard: 'a' is not HOST:PORT"),
        ({"shard": "a:0"}, "shard: 'a:0': the port is that at which others reach this server"),
        ({"shard": "a:65536"}, "shard: 'a:65536': the port must be a number"),
        ({"shard": "höst:1"}, "shard: 'höst:1': the host must be a name or an address"),
        ({"shard": "a,b:1"}, "shard: 'a,b:1': the host must be a name or an address"),
        ({"shard": "0.0.0.0:50051"}, "shard: '0.0.0.0:50051' is every address of any machine"),
        ({"shard": "[::]:50051"}, "is every address of any machine"),
        ({"shard": "a:1", "lease_seconds": 1.9}, "lease_seconds: must be from 2 to 300 seconds"),
        ({"shard": "a:1", "lease_seconds": 301}, "lease_seconds: must be from 2 to 300 seconds"),
        ({"shard": "a:1", "lease_seconds": float("nan")}, "lease_seconds: must be from 2 to 300 seconds"),
    ],
)
def test_what_cannot_be(tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    (found,) = check(ServerConfig(**({"data": tmp_path, "store": REDIS} | options)))
    assert problem in found
