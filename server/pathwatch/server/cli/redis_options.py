"""Options of a store in Redis."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pathwatch.server.config.redis import RedisOptions

F = TypeVar("F", bound=Callable[..., Any])

_PEM = click.Path(path_type=Path)
_SECRET = click.Path(dir_okay=False, path_type=Path)
_OPTIONS = (
    click.option(
        "--redis-password",
        metavar="TEXT",
        help="Of the user in the URL of --store; better from PATHWATCH_REDIS_PASSWORD or a file.",
    ),
    click.option("--redis-password-file", type=_SECRET, metavar="FILE", help="The same, in a file."),
    click.option(
        "--redis-sentinel-password-file",
        type=_SECRET,
        metavar="FILE",
        help="What sentinels want, where they want any.",
    ),
    click.option("--redis-ca", type=_PEM, help="Authority behind the certificates of rediss://, PEM."),
    click.option("--redis-cert", type=_PEM, help="Our certificate for Redis, PEM."),
    click.option("--redis-key", type=_PEM, help="Its private key, PEM."),
    click.option(
        "--redis-wait-replicas",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        metavar="N",
        help="Acknowledge what at least N replicas have.",
    ),
    click.option(
        "--redis-timeout-seconds",
        type=float,
        default=5.0,
        show_default=True,
        metavar="SECONDS",
        help="How long a connection, a reply or the replicas may take.",
    ),
)


def redis_options(function: F) -> F:
    """Adds them; the function gets them as arguments that begin with `redis_`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def to_redis_options(
    *,
    redis_password: str | None,
    redis_password_file: Path | None,
    redis_sentinel_password_file: Path | None,
    redis_ca: Path | None,
    redis_cert: Path | None,
    redis_key: Path | None,
    redis_wait_replicas: int,
    redis_timeout_seconds: float,
) -> RedisOptions:
    """What was given. ValueError where two options do not go together."""
    from pathwatch.server.config import RedisOptions, Secret

    if redis_password is not None and redis_password_file is not None:
        raise ValueError("--redis-password and --redis-password-file: give one of them")
    password = Secret(redis_password) if redis_password is not None else None
    if redis_password_file is not None:
        password = Secret(file=redis_password_file)
    sentinel_file = redis_sentinel_password_file
    return RedisOptions(
        password=password,
        sentinel_password=None if sentinel_file is None else Secret(file=sentinel_file),
        ca=redis_ca,
        cert=redis_cert,
        key=redis_key,
        wait_replicas=redis_wait_replicas,
        timeout_seconds=redis_timeout_seconds,
    )
