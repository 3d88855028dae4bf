"""One server's address, and who listens in on the way to it."""

from __future__ import annotations

import ipaddress


def host_of(address: str) -> str:
    """Host part of HOST:PORT, brackets of IPv6 left out; "" for unix:PATH. Raises ValueError."""
    if address.startswith("unix:"):
        return ""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"address {address!r} is not HOST:PORT, e.g. 127.0.0.1:50051")
    return host.strip("[]")


def is_loopback(host: str) -> bool:
    """Whether what is said to the host, as `host_of` gives it, stays on this machine."""
    if host in {"", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
