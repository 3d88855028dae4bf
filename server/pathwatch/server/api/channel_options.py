"""What gRPC is told about connections and messages."""

from __future__ import annotations

from pathwatch.server.api.age import ConnectionAge
from pathwatch.server.config import Limits

MIN_PING_MS = 10_000
"""Senders may ping this often, also without a call, to notice a dead network; who pings more is cut off."""
KEEPALIVE_MS = 60_000
"""A sender that is silent this long is asked whether it is still there, …"""
KEEPALIVE_TIMEOUT_MS = 20_000
"""… and its calls end if it does not answer within this time."""

UNTAKEN_SECONDS = 3600
"""A call that the server has not got round to after this time is cancelled by gRPC, and no caller knows what
to make of that. Its caller's patience ends before."""


def channel_options(limits: Limits, age: ConnectionAge) -> tuple[tuple[str, int], ...]:
    """Options of the gRPC server."""
    calls = limits.streams + limits.watchers + limits.calls + limits.health_calls
    options = (
        # Somewhat larger messages are read, refused, and the stream goes on. Compressed ones count unpacked.
        ("grpc.max_receive_message_length", 2 * limits.message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
        # Before anything is known of who connects.
        ("grpc.max_allowed_incoming_connections", limits.connections),
        # What all connections together may have open, one need not exceed.
        ("grpc.max_concurrent_streams", calls),
        # Else gRPC cancels some of a thousand calls that come at once, as after a restart or a takeover.
        ("grpc.server.max_pending_requests", calls),
        ("grpc.server.max_pending_requests_hard_limit", calls),
        ("grpc.server_max_unrequested_time_in_server", UNTAKEN_SECONDS),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        # For writing (the TCP user timeout) and for the answer to a ping, which else may take a minute.
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    )
    if not age.seconds:
        return options
    # New calls go to a new connection then; those under way go on, and the long ones end by themselves.
    return (*options, ("grpc.max_connection_age_ms", int(age.seconds * 1000)))
