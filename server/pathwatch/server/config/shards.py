"""What one of several servers that share a Redis is told, and what is wrong with it."""

from __future__ import annotations

import ipaddress
import re

from pathwatch.server.config.addresses import split_address
from pathwatch.server.config.redis import is_redis_url

MIN_LEASE_SECONDS = 2.0
"""Below it, a slow reply of Redis would cost a server its runs."""
MAX_LEASE_SECONDS = 300.0


def shard_problems(shard: str, store: str, lease_seconds: float) -> list[str]:
    """What is wrong with who a server is to others, each one line."""
    problems = []
    if shard and not is_redis_url(store):
        problems.append("shard: only with the URL of a Redis as store, which the others share")
    if shard and (problem := _address_problem(shard)):
        problems.append(f"shard: {problem}")
    if not MIN_LEASE_SECONDS <= lease_seconds <= MAX_LEASE_SECONDS:
        problems.append(f"lease_seconds: must be from {MIN_LEASE_SECONDS:g} to {MAX_LEASE_SECONDS:g} seconds")
    return problems


def _address_problem(shard: str) -> str:
    """Why nobody reaches the server there; empty = they may."""
    try:
        host, port = split_address(shard)
    except ValueError as error:
        return str(error)
    if not port:
        return f"{shard!r}: the port is that at which others reach this server, not 0"
    if not re.fullmatch(r"[A-Za-z0-9._:%-]+", host):
        return f"{shard!r}: the host must be a name or an address"
    try:
        unspecified = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return ""
    return f"{shard!r} is every address of any machine; name one that others reach" if unspecified else ""
