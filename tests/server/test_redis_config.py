"""What is said of a Redis: its URL, taken apart, and what is refused without a word of the password."""

from __future__ import annotations

from pathlib import Path

import pytest

from pathwatch.server.config import RedisOptions, Secret, ServerConfig, check
from pathwatch.server.config.redis import RedisAddress, RedisUrlError, Topology, parse_redis_url

PASSWORD = "pa$$:w@rd/"  # noqa: S105
ESCAPED = "pa$$%3Aw%40rd%2F"


@pytest.mark.parametrize(
    ("url", "expected", "shown"),
    [
        (
            "redis://cache",
            RedisAddress(topology=Topology.SINGLE, tls=False, hosts=(("cache", 6379),)),
            "redis://cache:6379",
        ),
        (
            f"rediss://me:{ESCAPED}@cache:7000/3",
            RedisAddress(
                topology=Topology.SINGLE,
                tls=True,
                hosts=(("cache", 7000),),
                database=3,
                user="me",
                password=Secret(PASSWORD),
            ),
            "rediss://cache:7000/3",
        ),
        (
            f"redis://:{ESCAPED}@[::1]",
            RedisAddress(
                topology=Topology.SINGLE, tls=False, hosts=(("::1", 6379),), password=Secret(PASSWORD)
            ),
            "redis://[::1]:6379",
        ),
        (
            "rediss+sentinel://a,b:1234/main/2",
            RedisAddress(
                topology=Topology.SENTINEL,
                tls=True,
                hosts=(("a", 26379), ("b", 1234)),
                service="main",
                database=2,
            ),
            "rediss+sentinel://a:26379,b:1234/main/2",
        ),
        (
            "redis+cluster://a:7000,b",
            RedisAddress(topology=Topology.CLUSTER, tls=False, hosts=(("a", 7000), ("b", 6379))),
            "redis+cluster://a:7000,b:6379",
        ),
    ],
)
def test_a_url_is_taken_apart(url: str, expected: RedisAddress, shown: str) -> None:
    found = parse_redis_url(url)
    assert found == expected
    assert str(found) == shown
    assert "pa$$" not in repr(found)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis:cache", "its scheme is none of"),
        ("redis+unix://cache", "its scheme is none of"),
        ("redis://me:secret@", "it names no host"),
        ("redis://me:secret@cache:port", "'cache:port' is not HOST or HOST:PORT"),
        ("redis://a,b", "it names several hosts"),
        ("redis://a/main", "must be the number of a database"),
        ("redis://a/1/2", "must be the number of a database"),
        ("redis+sentinel://a", "after the sentinels it wants /NAME"),
        ("redis+cluster://a/1", "a cluster has but one database"),
        ("redis://me:secret?x@a", "it has a `[?]` or a `#`"),
    ],
)
def test_a_url_that_is_none(url: str, says: str) -> None:
    with pytest.raises(RedisUrlError, match=says) as refused:
        parse_redis_url(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("redis://a", RedisOptions(wait_replicas=-1), "redis_wait_replicas: must be 0 or more"),
        ("redis://a", RedisOptions(timeout_seconds=0), "redis_timeout_seconds: must be more than 0"),
        ("redis://a", RedisOptions(timeout_seconds=float("nan")), "redis_timeout_seconds: must be"),
        ("redis://a", RedisOptions(ca=Path(__file__)), "only for rediss://"),
        ("rediss://a", RedisOptions(ca=Path(__file__)), "test_redis_config.py is not a PEM file"),
        ("rediss://a", RedisOptions(cert=Path(__file__)), "belong together"),
        ("redis://:secret@a", RedisOptions(password=Secret("x")), "has a password too"),
        ("redis://secret@a", RedisOptions(), "names a user without a password"),
        (
            "redis://a",
            RedisOptions(password=Secret(file=Path("/nowhere"))),
            "redis_password_file: cannot read /nowhere",
        ),
        ("sqlite", RedisOptions(wait_replicas=1), "only with the URL of a Redis as store"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, url: str, options: RedisOptions, says: str) -> None:
    (problem,) = check(ServerConfig(data=tmp_path, store=url, redis=options))
    assert says in problem
    assert "secret" not in problem


def test_a_configuration_shows_no_password(tmp_path: Path) -> None:
    config = ServerConfig(
        data=tmp_path, store="redis://:secret@a", redis=RedisOptions(password=Secret("secret"))
    )
    assert "secret" not in repr(config)
