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
    first_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    chance = random.SystemRandom()
    while True:
        port = chance.randrange(first_given // 2, first_given)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
