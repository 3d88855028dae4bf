"""What passed a relay since it started."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class RelayCounts:
    """Written on the event loop, read from anywhere."""

    forwarded: int = 0
    """Observations sent on, those sent again included."""
    cut: int = 0
    """Observations left out: the servers would not have kept them."""
    received_bytes: int = 0
    """Of messages of ranks, as serialized."""
    forwarded_bytes: int = 0
    """Of what was sent on of them."""
