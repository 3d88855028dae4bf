"""Who may reach the server, and how they prove it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files for TLS."""

    cert: Path
    """Certificate chain of the server."""
    key: Path
    """Private key of the server."""
    client_ca: Path | None = None
    """Certificate authority that clients must prove themselves with (mutual TLS); None = any client."""


def tls_problems(tls: TlsFiles | None) -> list[str]:
    """What is wrong with the PEM files, each one line."""
    if tls is None:
        return []
    problems = []
    for name in ("cert", "key", "client_ca"):
        path = getattr(tls, name)
        if path is None:
            continue
        try:
            if b"-----BEGIN" not in path.read_bytes():
                problems.append(f"tls {name}: {path} is not a PEM file")
        except OSError as error:
            problems.append(f"tls {name}: cannot read {path}: {error.strerror}")
    return problems
