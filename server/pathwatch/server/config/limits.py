"""Every bound of the service, in one object."""

from __future__ import annotations

from dataclasses import dataclass, fields

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Every bound of the service; past one, the caller gets RESOURCE_EXHAUSTED and others are not slowed."""

    runs: int = 1000
    """Runs kept, finished ones included."""
    groups_per_run: int = 64
    """Data groups of one run."""
    layers: int = 256
    """MoE layers L of a run."""
    experts: int = 1024
    """Experts per layer K of a run."""
    capacity: int = 8192
    """Observations kept per window and group."""
    samples_per_message: int = 16384
    """Observations in one batch."""
    message_bytes: int = 32 * MEBIBYTE
    """Size of one message. Up to twice as much is read, so that it is refused and the stream goes on."""
    streams: int = 1024
    """StreamRouting calls open at the same time."""
    unacked_bytes_per_stream: int = 64 * MEBIBYTE
    """Read from one stream and not yet acknowledged; beyond, the stream is not read on."""


def limit_problems(limits: Limits) -> list[str]:
    """What is wrong with the bounds, each one line."""
    return [
        f"limits.{item.name}: must be at least 1" for item in fields(limits) if getattr(limits, item.name) < 1
    ]
