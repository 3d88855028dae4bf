"""How a relay reaches one server."""

from __future__ import annotations

import grpc

from pathwatch.client.addresses import host_of, is_loopback
from pathwatch.server.config import RelayConfig

_OPTIONS = (
    # As clients do: a ping after 20 silent seconds finds a server that is frozen or a network that is gone.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
    # History and observations are as large as they are; requests were bounded when they came in.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # One that is opened anew connects at once, whatever another waits for.
    ("grpc.use_local_subchannel_pool", 1),
)
CONNECT_SECONDS = 5.0
"""How long connecting may take where there are other servers to go to."""


def open_channel(
    address: str, config: RelayConfig, authority: str | None, *, patient: bool
) -> grpc.aio.Channel:
    """Channel to HOST:PORT; nothing is sent yet. `authority`: NAME:PORT its certificate is for, if another.

    A server that does not answer is given up after CONNECT_SECONDS and tried again every second, unless
    `patient`: for where there is no other. It is TLS unless the address is loopback and no PEM file was
    given, or plaintext was asked for. Raises ValueError for what is no address, OSError where a PEM file
    cannot be read.
    """
    host = host_of(address)
    options: list[tuple[str, int | str]] = [*_OPTIONS]
    if not patient:
        # The first bounds how long connecting may take, despite its name.
        options.append(("grpc.min_reconnect_backoff_ms", int(1000 * CONNECT_SECONDS)))
        options.append(("grpc.max_reconnect_backoff_ms", 1000))
    asks_for_tls = config.upstream_ca is not None or config.upstream_cert is not None
    if config.upstream_insecure or (is_loopback(host) and not asks_for_tls):
        # A proxy that `http_proxy` names would get the plaintext, tokens included.
        return grpc.aio.insecure_channel(address, options=(*options, ("grpc.enable_http_proxy", 0)))
    ca, key, cert = (
        None if path is None else path.read_bytes()
        for path in (config.upstream_ca, config.upstream_key, config.upstream_cert)
    )
    credentials = grpc.ssl_channel_credentials(ca, key, cert)
    if authority is not None:
        options.append(("grpc.default_authority", authority))  # which certificates are checked against, too
    return grpc.aio.secure_channel(address, credentials, options=options)
