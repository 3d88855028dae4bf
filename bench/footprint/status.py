"""What the kernel says of a process's memory (Linux)."""

from __future__ import annotations

from pathlib import Path


def resident(pid: int | str) -> float:
    """Megabytes of a process that are in memory now; its part of shared libraries counts whole."""
    return _status(pid, "VmRSS")


def peak(pid: int | str) -> float:
    """The most there ever were."""
    return _status(pid, "VmHWM")


def _status(pid: int | str, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) * 1024 / 1e6
    raise RuntimeError(f"/proc/{pid}/status has no {field}: memory is measured on Linux only")
