"""What a server is told when it starts, and what is wrong with it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, fields
from pathlib import Path

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Every bound of the service; past one, the caller gets RESOURCE_EXHAUSTED and others are not slowed."""

    runs: int = 1000
    """Runs kept, finished ones included."""
    groups_per_run: int = 64
    """Data groups of one run."""
    layers: int = 256
    """MoE layers L of a run."""
    experts: int = 1024
    """Experts per layer K of a run."""
    capacity: int = 8192
    """Observations kept per window and group."""
    samples_per_message: int = 16384
    """Observations in one batch."""
    message_bytes: int = 32 * MEBIBYTE
    """Size of one message. Up to twice as much is read, so that it is refused and the stream goes on."""
    streams: int = 1024
    """StreamRouting calls open at the same time."""
    unacked_bytes_per_stream: int = 64 * MEBIBYTE
    """Read from one stream and not yet acknowledged; beyond, the stream is not read on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files for TLS."""

    cert: Path
    """Certificate chain of the server."""
    key: Path
    """Private key of the server."""
    client_ca: Path | None = None
    """Certificate authority that clients must prove themselves with (mutual TLS); None = any client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Configuration of one server process."""

    data: Path
    """Folder for everything durable; made if it is not there. One server at a time may use it."""
    listen: str = "127.0.0.1:50051"
    """HOST:PORT for gRPC; port 0 = a free one."""
    http: str = "127.0.0.1:9464"
    """HOST:PORT for /metrics, /healthz and the list of runs; port 0 = a free one."""
    insecure: bool = False
    """Allow plaintext gRPC on addresses that other machines reach."""
    tls: TlsFiles | None = None
    """Serve gRPC with TLS."""
    store: str = "sqlite"
    """Where state is kept; only "sqlite" in this version."""
    compute_threads: int = 2
    """Threads that compute metrics; ingest and signals have threads of their own."""
    drain_seconds: float = 5.0
    """How long a stop waits for open calls to end."""
    limits: Limits = field(default_factory=Limits)
    """Bounds."""


class AddressError(Exception):
    """An address that cannot be listened on; the message says which and why."""


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT (IPv6 hosts in brackets) as host and port; ValueError says what is wrong."""
    host, colon, port = address.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{address!r} is not HOST:PORT, e.g. 127.0.0.1:50051")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r}: the port must be a number from 0 (a free one) to 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check(config: ServerConfig) -> list[str]:
    """All problems of a configuration, each one line; empty when the server could start."""
    return [
        *_address_problems(config),
        *_store_problems(config),
        *_tls_problems(config),
        *_number_problems(config),
    ]


def _address_problems(config: ServerConfig) -> list[str]:
    problems = []
    for name, address in (("listen", config.listen), ("http", config.http)):
        try:
            host, _ = split_address(address)
        except ValueError as error:
            problems.append(f"{name}: {error}")
            continue
        if name == "listen" and not is_loopback(host) and config.tls is None and not config.insecure:
            problems.append(
                f"listen: {address} is reachable from other machines and would carry plaintext; "
                "give --tls-cert and --tls-key, or --insecure if the network is trusted"
            )
    return problems


def _store_problems(config: ServerConfig) -> list[str]:
    problems = []
    if config.store.startswith("redis://"):
        problems.append("store: redis is not available in this version; use sqlite")
    elif config.store != "sqlite":
        problems.append(f"store: {config.store!r} is unknown; use sqlite")
    if config.data.exists() and not config.data.is_dir():
        problems.append(f"data: {config.data} is not a folder")
    return problems


def _tls_problems(config: ServerConfig) -> list[str]:
    if config.tls is None:
        return []
    problems = []
    for name in ("cert", "key", "client_ca"):
        path = getattr(config.tls, name)
        if path is None:
            continue
        try:
            if b"-----BEGIN" not in path.read_bytes():
                problems.append(f"tls {name}: {path} is not a PEM file")
        except OSError as error:
            problems.append(f"tls {name}: cannot read {path}: {error.strerror}")
    return problems


def _number_problems(config: ServerConfig) -> list[str]:
    problems = [
        f"limits.{item.name}: must be at least 1"
        for item in fields(config.limits)
        if getattr(config.limits, item.name) < 1
    ]
    if config.compute_threads < 1:
        problems.append("compute_threads: must be at least 1")
    if not 0 <= config.drain_seconds < float("inf"):
        problems.append("drain_seconds: must be a number of seconds, 0 or more")
    return problems
