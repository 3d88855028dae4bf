"""How every call reaches a server: one factory for channels, plaintext on loopback only unless asked for."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

# gRPC's own fork handlers stop its threads in the *parent* and hang or crash it when calls are under way
# (measured with 1.85). Ours leave a child's copy alone, which needs no handlers. Read when gRPC first starts.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

_OPTIONS = (
    # A ping after 20 silent seconds, to be answered within 20, finds a server that is frozen or a network
    # that is gone; a busy one answers, gRPC does that by itself. The sidecar allows a ping every 10 s.
    ("grpc.keepalive_time_ms", 20_000),
    # With gRPC 1.85 it is this that ends the connection; the other is only the TCP user timeout.
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # History and signals come from a server the user chose: no limit of ours.
    ("grpc.max_receive_message_length", -1),
    # Channels do not share connections: closing one ends it, a new one starts without its back-off.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """How to prove who is speaking. Without `insecure` the connection is TLS."""

    root_ca: str | os.PathLike[str] | None = None
    """PEM file of the authority that signed the server's certificate; None = the public authorities."""
    cert: str | os.PathLike[str] | None = None
    """PEM file of the client's certificate, for mutual TLS; only with `key`."""
    key: str | os.PathLike[str] | None = None
    """PEM file of the client's private key; only with `cert`."""
    token: str | None = field(default=None, repr=False)
    """Bearer token, sent as `authorization` with every call."""
    insecure: bool = False
    """Plaintext, even off loopback. The token, if any, is readable on the way."""


def open_channel(address: str, credentials: Credentials | None = None) -> grpc.Channel:
    """Channel to `address` (HOST:PORT or unix:PATH); nothing is sent yet.

    Without credentials it is plaintext, which only a loopback address allows.

    Raises:
        ValueError: a malformed address, plaintext off loopback, or credentials that contradict each other.
        OSError: a credentials file cannot be read.
    """
    host = _host(address)
    if credentials is None:
        if not _is_loopback(host):
            raise ValueError(
                f"refusing plaintext to {address}: give Credentials(root_ca=…) for TLS, "
                "or Credentials(insecure=True) on a network you trust"
            )
        return grpc.insecure_channel(address, options=_OPTIONS)
    if (credentials.cert is None) != (credentials.key is None):
        raise ValueError("credentials: cert and key belong together, one of them is missing")
    if credentials.insecure:
        if credentials.root_ca is not None or credentials.cert is not None:
            raise ValueError("credentials: insecure=True contradicts root_ca, cert and key; choose one")
        channel = grpc.insecure_channel(address, options=_OPTIONS)
    else:
        tls = grpc.ssl_channel_credentials(
            root_certificates=_content(credentials.root_ca),
            private_key=_content(credentials.key),
            certificate_chain=_content(credentials.cert),
        )
        channel = grpc.secure_channel(address, tls, options=_OPTIONS)
    return grpc.intercept_channel(channel, _Bearer(credentials.token)) if credentials.token else channel


def _host(address: str) -> str:
    """Host part of HOST:PORT; "" for a unix socket."""
    if address.startswith("unix:"):
        return ""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"address {address!r} is not HOST:PORT")
    return host.strip("[]")


def _is_loopback(host: str) -> bool:
    if host in {"", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _content(path: str | os.PathLike[str] | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


@dataclass(frozen=True, slots=True)
class _CallDetails(grpc.ClientCallDetails):
    method: str
    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...]
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Bearer(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg] # generic in the stubs only
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamStreamClientInterceptor,  # type: ignore[type-arg]
):
    """Adds the token to every call. Call credentials would do so over TLS only."""

    def __init__(self, token: str) -> None:
        self._header = ("authorization", f"Bearer {token}")

    def _intercept(self, call: Callable[..., Any], details: grpc.ClientCallDetails, request: Any) -> Any:
        return call(
            _CallDetails(
                method=details.method,
                timeout=details.timeout,
                metadata=(*(details.metadata or ()), self._header),
                credentials=details.credentials,
                wait_for_ready=details.wait_for_ready,
                compression=details.compression,
            ),
            request,
        )

    intercept_unary_unary = _intercept  # type: ignore[assignment] # all three pass the request on
    intercept_unary_stream = _intercept  # type: ignore[assignment]
    intercept_stream_stream = _intercept  # type: ignore[assignment]
