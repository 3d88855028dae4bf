"""Which process wrote a file, and whether it still runs."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One process: also told from a later one of the same number, in another container or after a reboot."""

    host: str
    boot: str
    """Of this start of the machine; empty where it cannot be told."""
    namespace: str
    """In which `pid` counts; empty where it cannot be told."""
    pid: int
    started: str
    """When the process started, since the machine did; empty where it cannot be told."""

    @classmethod
    def current(cls) -> Life:
        """This process."""
        pid = os.getpid()
        namespace = ""
        with contextlib.suppress(OSError):
            namespace = os.readlink("/proc/self/ns/pid")
        return cls(
            host=socket.gethostname(), boot=_boot(), namespace=namespace, pid=pid, started=_started(pid) or ""
        )

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Life:
        """From what `fields` gave. Raises KeyError."""
        return cls(**{name: fields[name] for name in ("host", "boot", "namespace", "pid", "started")})

    def fields(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def is_over(self) -> bool | None:
        """Whether the process has ended; None = it cannot be told from here."""
        here = Life.current()
        if not self.boot or (self.boot, self.namespace) != (here.boot, here.namespace):
            return None
        return _started(self.pid) != self.started


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _started(pid: int) -> str | None:
    """None = there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the program's name in parentheses, which may hold anything.
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else str(fields[18])
