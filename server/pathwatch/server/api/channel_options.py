"""What gRPC is told about connections and messages."""

from __future__ import annotations

from pathwatch.server.config import Limits


def channel_options(limits: Limits) -> tuple[tuple[str, int], ...]:
    """Options of the gRPC server."""
    return (
        # Somewhat larger messages are read, refused, and the stream goes on.
        ("grpc.max_receive_message_length", 2 * limits.message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
        # Before anything is known of who connects.
        ("grpc.max_allowed_incoming_connections", limits.connections),
        # Senders may ping an idle stream every ten seconds to notice a dead network.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    )
