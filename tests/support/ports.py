"""Loopback ports for servers that end and start again at the same address."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

_given: set[int] = set()


def lasting_port() -> int:
    """A port that nobody listens on, and that neither the kernel nor another test gives to anybody else.

    A port from bind(0) is the kernel's to give again while its server is down, to whoever asks for one or
    to an outgoing connection; the server that comes back would find it taken. So would one that starts a
    moment after somebody has drawn the same port.
    """
    ports = _ports_of_this_process()
    for port in random.SystemRandom().sample(ports, min(1000, len(ports))):
        if port in _given:
            continue
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port
    raise RuntimeError("a thousand ports of 127.0.0.1 are taken")


def _ports_of_this_process() -> range:
    """Each of the processes that run tests side by side has its own share."""
    worker, workers = (os.environ.get(f"PYTEST_XDIST_WORKER{what}", "") for what in ("", "_COUNT"))
    if not worker:
        return _own_ports()
    return _own_ports()[int(worker.removeprefix("gw")) :: int(workers)]


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
