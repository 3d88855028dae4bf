"""What a relay is told when it starts, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pathwatch.server.config.serving import ServingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayConfig(ServingConfig):
    """Configuration of a process that passes calls on to other servers and keeps nothing."""

    upstream: str
    """Where those are: HOST:PORT, several with commas between, dns:///NAME:PORT or file:///PATH."""
    upstream_ca: Path | None = None
    """PEM file of the authority behind their certificates; None = the public authorities. With it TLS is
    spoken on loopback too. Read again for each connection, like the others."""
    upstream_cert: Path | None = None
    """PEM file of our own certificate, for mutual TLS; only with `upstream_key`."""
    upstream_key: Path | None = None
    """PEM file of its private key; only with `upstream_cert`."""
    upstream_token_file: Path | None = None
    """File with the bearer token for calls whose caller shows none; read again for each call."""
    upstream_insecure: bool = False
    """Plaintext upstream, even off loopback. Tokens are readable on the way."""


def upstream_problems(config: RelayConfig) -> list[str]:
    """What is wrong with how the servers are reached, each one line."""
    problems = []
    if (config.upstream_cert is None) != (config.upstream_key is None):
        problems.append("upstream_cert and upstream_key belong together, one of them is missing")
    pems = {"upstream_ca": config.upstream_ca, "upstream_cert": config.upstream_cert}
    if config.upstream_insecure and any(pems.values()):
        problems.append("upstream_insecure: contradicts upstream_ca, upstream_cert and upstream_key")
    files = {**pems, "upstream_key": config.upstream_key, "upstream_token_file": config.upstream_token_file}
    for name, path in files.items():
        try:
            if path is not None and not path.read_bytes().strip():
                problems.append(f"{name}: {path} is empty")
        except OSError as error:
            problems.append(f"{name}: cannot read {path}: {error.strerror}")
    return problems
