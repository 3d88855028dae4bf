"""PEM files for TLS, and what is wrong with them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files for TLS."""

    cert: Path
    """Certificate chain of the server."""
    key: Path
    """Private key of the server, without a passphrase."""
    client_ca: Path | None = None
    """Certificate authority that clients must prove themselves with (mutual TLS); None = any client."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        return (self.cert, self.key) if self.client_ca is None else (self.cert, self.key, self.client_ca)


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
    if problems:
        return problems
    try:
        server_context(tls)
    except (OSError, ValueError) as error:
        return [f"tls: {error}"]
    return []


def server_context(tls: TlsFiles) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 with the server's certificate, for clients with or without one of their own.

    Raises OSError where a file cannot be read, ValueError where the files are not what they should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2

    def refuse_passphrase() -> str:
        raise ValueError(f"{tls.key} is encrypted; give a key without a passphrase")

    try:
        context.load_cert_chain(tls.cert, tls.key, password=refuse_passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"the key {tls.key} does not belong to the certificate {tls.cert}") from None
        raise ValueError(
            f"{tls.cert} and {tls.key} are no certificate and key: {error.reason or error}"
        ) from None
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
        except ssl.SSLError as error:
            raise ValueError(f"{tls.client_ca} is no certificate: {error.reason or error}") from None
    return context
