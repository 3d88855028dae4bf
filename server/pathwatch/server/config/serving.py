"""What every process that serves gRPC and HTTP is told when it starts, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pathwatch.server.config.limits import Limits, limit_problems
from pathwatch.server.config.tls import TlsFiles, tls_problems

MAX_AGE_SECONDS = 7 * 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingConfig:
    """Where it listens, who may come in, and how much may come."""

    listen: str = "127.0.0.1:50051"
    """HOST:PORT for gRPC; port 0 = a free one."""
    http: str = "127.0.0.1:9464"
    """HOST:PORT for /metrics, /healthz and what else there is to see; port 0 = a free one."""
    insecure: bool = False
    """Allow plaintext on addresses that other machines reach."""
    tls: TlsFiles | None = None
    """Serve gRPC with TLS. The files are read again when they change."""
    http_tls: bool = False
    """Serve HTTPS, with the certificate of `tls`."""
    tokens: Path | None = None
    """YAML file of the tokens that open gRPC calls; None = calls need none. Read again when it changes."""
    http_tokens: Path | None = None
    """YAML file of tokens; /metrics and /api/ need one with the scope read that is bound to no runs."""
    audit_log: Path | None = None
    """File that calls which finish or delete runs, and refused ones, are appended to; None = the log."""
    max_connection_age_seconds: float = 3600.0
    """How long a connection lasts before its clients come again, give or take a tenth; 0 = for ever."""
    drain_seconds: float = 5.0
    """How long a stop waits for open calls to end."""
    limits: Limits = field(default_factory=Limits)
    """Bounds."""


def serving_problems(config: ServingConfig) -> list[str]:
    """What is wrong with certificates, bounds and times, each one line."""
    problems = [*tls_problems(config.tls), *limit_problems(config.limits)]
    if not 0 <= config.max_connection_age_seconds <= MAX_AGE_SECONDS:
        problems.append("max_connection_age_seconds: must be at most 7 days, 604800, or 0 (= for ever)")
    if not 0 <= config.drain_seconds < float("inf"):
        problems.append("drain_seconds: must be a number of seconds, 0 or more")
    return problems
