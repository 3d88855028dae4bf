"""Loopback ports for servers that end and start again at the same address."""

from __future__ import annotations

import random
import socket
from pathlib import Path


def lasting_port() -> int:
    """A port that nobody listens on and that the kernel gives to nobody else.

    A port from bind(0) is the kernel's to give again while its server is down, to whoever asks for one or
    to an outgoing connection; the server that comes back would find it taken.
    """
    for port in random.SystemRandom().sample(_own_ports(), 1000):
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("a thousand ports of 127.0.0.1 are taken")


def _own_ports() -> range:
    """Those that the kernel does not give away, above those of the system."""
    try:
        given = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except OSError:  # not Linux: what the kernels of others give away begins here
        given = ["49152", "65535"]
    below, above = range(10_000, int(given[0])), range(int(given[1]) + 1, 1 << 16)
    own = max(below, above, key=len)
    # Where nearly all are given away, one of its own is not to be had.
    return own if len(own) >= 2000 else range(10_000, 32_768)
