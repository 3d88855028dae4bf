"""Options of one of several servers that share a Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--shard",
        default="",
        metavar="HOST:PORT",
        help="Share the Redis of --store with other servers; this one is reached here (docs/scale.md).",
    ),
    click.option(
        "--lease-seconds",
        type=float,
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="How long after a shard was heard of last its runs go to others.",
    ),
)


def shard_options(function: F) -> F:
    """Adds them; the function gets `shard` and `lease_seconds`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
