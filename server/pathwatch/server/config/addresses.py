"""HOST:PORT, and who reaches it."""

from __future__ import annotations

import ipaddress


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
