"""How every call reaches a server: one factory for channels, plaintext on loopback only unless asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc

from pathwatch.client.addresses import host_of, is_loopback

_OPTIONS = (
    # A ping after 20 silent seconds finds a server that is frozen or a network that is gone; a busy server
    # answers, gRPC does that by itself. The sidecar allows a ping every 10 s.
    ("grpc.keepalive_time_ms", 20_000),
    # History and signals come from a server the user chose: no limit of ours.
    ("grpc.max_receive_message_length", -1),
    # Channels do not share connections: closing one ends it, a new one starts without its back-off.
    ("grpc.use_local_subchannel_pool", 1),
)

PING_SECONDS = 20.0
"""How long a ping may go unanswered, before a connection is given up."""

_TOKEN_BYTES = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """How to prove who is speaking. Files are read for every connection, so that they may be replaced.

    The connection is TLS unless `insecure` is set; to a loopback address only where `tls` or a PEM file is
    given.
    """

    root_ca: str | os.PathLike[str] | None = None
    """PEM file of the authority that signed the server's certificate; None = the public authorities."""
    cert: str | os.PathLike[str] | None = None
    """PEM file of the client's certificate, for mutual TLS; only with `key`."""
    key: str | os.PathLike[str] | None = None
    """PEM file of the client's private key; only with `cert`."""
    token: str | None = field(default=None, repr=False)
    """Bearer token, sent as `authorization` with every call."""
    token_file: str | os.PathLike[str] | None = None
    """File that holds the bearer token and nothing else; this or `token`."""
    tls: bool = False
    """TLS on loopback too, where no PEM file is given."""
    insecure: bool = False
    """Plaintext, even off loopback. The token, if any, is readable on the way."""

    @classmethod
    def from_environment(cls, given: Credentials | None = None) -> Credentials | None:
        """`given`, with the token of `PATHWATCH_TOKEN`, or the file of `PATHWATCH_TOKEN_FILE`, where it has
        none; None where neither is set."""
        if given is not None and (given.token or given.token_file):
            return given
        if token := os.environ.get("PATHWATCH_TOKEN"):
            return replace(given or cls(), token=token)
        if token_file := os.environ.get("PATHWATCH_TOKEN_FILE"):
            return replace(given or cls(), token_file=token_file)
        return given


def open_channel(
    address: str,
    credentials: Credentials | None = None,
    *,
    authority: str | None = None,
    ping_seconds: float = PING_SECONDS,
    connect_seconds: float | None = None,
) -> grpc.Channel:
    """Channel to `address` (HOST:PORT or unix:PATH); nothing is sent yet.

    With an `authority`, NAME:PORT, the certificate must be for NAME, else for the address. The connection is
    over when a ping is not answered within `ping_seconds`. With `connect_seconds` a server that does not
    answer is given up after so long, and tried again every second: for where there are others.

    Without credentials it is plaintext, which only a loopback address allows.

    Raises:
        ValueError: a malformed address, plaintext off loopback, credentials that contradict each other, or a
            token that cannot be one.
        OSError: a credentials file cannot be read.
    """
    host = host_of(address)
    options: list[tuple[str, int | str]] = [
        *_OPTIONS,
        # With gRPC 1.85 it is this that ends the connection; the other is only the TCP user timeout.
        ("grpc.http2.ping_timeout_ms", int(1000 * ping_seconds)),
        ("grpc.keepalive_timeout_ms", int(1000 * ping_seconds)),
    ]
    if authority is not None:
        options.append(("grpc.default_authority", authority))  # which certificates are checked against, too
    if connect_seconds is not None:
        # How long connecting may take, despite its name.
        options.append(("grpc.min_reconnect_backoff_ms", int(1000 * connect_seconds)))
        options.append(("grpc.max_reconnect_backoff_ms", 1000))
    if credentials is None:
        if not is_loopback(host):
            raise ValueError(
                f"refusing plaintext to {address}: give Credentials(root_ca=…) for TLS, "
                "or Credentials(insecure=True) on a network you trust"
            )
        return _plain(address, options)
    if (credentials.cert is None) != (credentials.key is None):
        raise ValueError("credentials: cert and key belong together, one of them is missing")
    asks_for_tls = credentials.tls or credentials.root_ca is not None or credentials.cert is not None
    if credentials.insecure and asks_for_tls:
        raise ValueError("credentials: insecure=True contradicts tls, root_ca, cert and key; choose one")
    token = _token(credentials)
    # Off loopback TLS is the default. On it no public authority certifies anybody, and nobody listens in.
    if credentials.insecure or (is_loopback(host) and not asks_for_tls):
        channel = _plain(address, options)
    else:
        tls = grpc.ssl_channel_credentials(
            root_certificates=_content(credentials.root_ca),
            private_key=_content(credentials.key),
            certificate_chain=_content(credentials.cert),
        )
        channel = grpc.secure_channel(address, tls, options=options)
    return grpc.intercept_channel(channel, _Bearer(token)) if token else channel


def _plain(address: str, options: Sequence[tuple[str, int | str]]) -> grpc.Channel:
    """Straight to the address: a proxy that `http_proxy` names would get the plaintext, token included."""
    return grpc.insecure_channel(address, options=(*options, ("grpc.enable_http_proxy", 0)))


def _token(credentials: Credentials) -> str | None:
    if credentials.token is None and credentials.token_file is None:
        return None
    if credentials.token is not None and credentials.token_file is not None:
        raise ValueError("credentials: token and token_file are both given; choose one")
    if credentials.token_file is None:
        token, where = credentials.token or "", "the token"
    else:
        with open(credentials.token_file, "rb") as file:
            token = file.read(_TOKEN_BYTES).decode("latin-1").strip()
        where = f"token file {os.fspath(credentials.token_file)}"
    # A text that gRPC refuses as metadata would come back in its error.
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(f"{where}: must hold one token, of printable ASCII without blanks")
    return token


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
