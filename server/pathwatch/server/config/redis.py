"""A Redis that keeps state: where it is, who we are to it, and what is wrong with what was said of it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pathwatch.server.config.secrets import Secret, SecretError

PORT = 6379
SENTINEL_PORT = 26379
FORMS = (
    "redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE], "
    "redis+sentinel://[USER[:PASSWORD]@]HOST[:PORT],…/NAME or "
    "redis+cluster://[USER[:PASSWORD]@]HOST[:PORT],…; rediss instead of redis for TLS"
)


class RedisUrlError(ValueError):
    """A URL of a Redis that cannot be used; the message holds no password."""


class Topology(StrEnum):
    """How many servers there are, and who knows which is to be asked."""

    SINGLE = "redis"
    SENTINEL = "redis+sentinel"
    CLUSTER = "redis+cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions:
    """What is said of a Redis beside its URL."""

    password: Secret | None = None
    """Of the URL's user; None = that of the URL, if any. Read anew for each connection."""
    sentinel_password: Secret | None = None
    """That sentinels want; None = none. They are asked as their default user."""
    ca: Path | None = None
    """PEM file of the authority behind the servers' certificates, beside those that the system trusts."""
    cert: Path | None = None
    """PEM file of our certificate, where the servers want one."""
    key: Path | None = None
    """PEM file of its private key, without a passphrase."""
    wait_replicas: int = 0
    """How many replicas must have a write before it is acknowledged."""
    timeout_seconds: float = 5.0
    """How long a connection, a reply or the replicas may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """A URL, taken apart."""

    topology: Topology
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    """Of the server, of the sentinels, or of some nodes of the cluster."""
    database: int = 0
    service: str = ""
    """What sentinels call the server."""
    user: str = ""
    """Empty = the default user."""
    password: Secret | None = field(default=None)

    def __str__(self) -> str:
        """The URL without its user and password."""
        scheme = self.topology.value.replace("redis", "rediss" if self.tls else "redis", 1)
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        path = f"/{self.service}" if self.service else ""
        return f"{scheme}://{hosts}{path}" + (f"/{self.database}" if self.database else "")


def is_redis_url(text: str) -> bool:
    """Whether somebody means a Redis."""
    return text.startswith(("redis:", "rediss:", "redis+", "rediss+"))


def parse_redis_url(text: str) -> RedisAddress:
    """Raises RedisUrlError."""
    scheme, separator, rest = text.partition("://")
    tls = scheme.startswith("rediss")
    plain = scheme.replace("rediss", "redis", 1)
    if not separator or plain not in set(Topology):
        raise RedisUrlError(f"its scheme is none of {FORMS}")
    topology = Topology(plain)
    parts = urlsplit(f"//{rest}")
    if parts.query or parts.fragment:
        raise RedisUrlError(
            "it has a `?` or a `#`: options have names of their own; in a password write %3F, %23"
        )
    account, _, hosts = parts.netloc.rpartition("@")
    user, _, password = account.partition(":")
    path = [unquote(part) for part in parts.path.strip("/").split("/") if part]
    service = ""
    if topology is Topology.SENTINEL:
        if not path:
            raise RedisUrlError("after the sentinels it wants /NAME, what they call the server")
        service = path.pop(0)
    if path and topology is Topology.CLUSTER:
        raise RedisUrlError("a cluster has but one database: nothing may come after the hosts")
    if len(path) > 1 or (path and not path[0].isdecimal()):
        raise RedisUrlError("what comes last must be the number of a database")
    port = SENTINEL_PORT if topology is Topology.SENTINEL else PORT
    found = tuple(_host(host, port) for host in hosts.split(","))
    if len(found) > 1 and topology is Topology.SINGLE:
        raise RedisUrlError("it names several hosts; write redis+sentinel:// or redis+cluster://")
    return RedisAddress(
        topology=topology,
        tls=tls,
        hosts=found,
        database=int(path[0]) if path else 0,
        service=service,
        user=unquote(user),
        password=Secret(unquote(password)) if password else None,
    )


def redis_problems(url: str, options: RedisOptions) -> list[str]:
    """What is wrong with a Redis as configured, each one line, without a password."""
    try:
        address = parse_redis_url(url)
    except RedisUrlError as error:
        return [f"store: this is no URL of a Redis: {error}"]
    problems = []
    for name, secret in (("password", options.password), ("sentinel_password", options.sentinel_password)):
        try:
            if secret is not None:
                secret.read()
        except SecretError as error:
            problems.append(f"redis_{name}_file: {error}")
    if address.password is not None and options.password is not None:
        problems.append("redis_password: the URL of the store has a password too; give one")
    if address.user and address.password is None and options.password is None:
        problems.append(
            "store: its URL names a user without a password: write USER:PASSWORD@ (or :PASSWORD@ for the "
            "default user), or give redis_password_file"
        )
    files = (options.ca, options.cert, options.key)
    if any(files) and not address.tls:
        problems.append("redis_ca, redis_cert, redis_key: only for rediss://, this URL is without TLS")
    elif address.tls:
        problems += _tls_problems(options)
    if options.wait_replicas < 0:
        problems.append("redis_wait_replicas: must be 0 or more")
    if not 0 < options.timeout_seconds <= 60:
        problems.append("redis_timeout_seconds: must be more than 0 and at most 60")
    return problems


def redis_tls(options: RedisOptions) -> ssl.SSLContext:
    """TLS to Redis, which must prove its name. OSError and ValueError say what is wrong with files."""
    context = ssl.create_default_context()
    if options.ca is not None:
        context.load_verify_locations(options.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2

    def refuse_passphrase() -> str:
        raise ValueError(f"{options.key} is encrypted; give a key without a passphrase")

    if options.cert is not None:
        context.load_cert_chain(options.cert, options.key, password=refuse_passphrase)
    return context


def _tls_problems(options: RedisOptions) -> list[str]:
    if (options.cert is None) != (options.key is None):
        return ["redis_cert and redis_key belong together, one of them is missing"]
    for path in filter(None, (options.ca, options.cert, options.key)):
        try:
            if b"-----BEGIN" not in path.read_bytes():
                return [f"redis TLS: {path} is not a PEM file"]
        except OSError as error:
            return [f"redis TLS: cannot read {path}: {error.strerror}"]
    try:
        redis_tls(options)
    except (OSError, ValueError) as error:
        return [f"redis TLS: {error}"]
    return []


def _host(text: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, given = parts.hostname, parts.port
    except ValueError:
        host, given = None, None
    if not host or (given is None and text.endswith(":")):
        raise RedisUrlError(f"{text!r} is not HOST or HOST:PORT" if text else "it names no host")
    return host, port if given is None else given
