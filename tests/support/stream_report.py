"""What a rank in a process of its own says of its streams in the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pathwatch.client import RoutingStream


def report_of(streams: Iterable[RoutingStream]) -> dict[str, Any]:
    """Of all of them together; can be sent as JSON."""
    stats = [stream.stats for stream in streams]
    return {
        "unacked_bytes": sum(one.buffered_bytes for one in stats),
        "dropped": sum(one.dropped_steps for one in stats),
        "rejected": sum(one.rejected for one in stats),
        "reconnects": sum(one.reconnects for one in stats),
        "last_error": next((one.last_error for one in stats if one.last_error), None),
    }


def check_nothing_lost(reports: Iterable[dict[str, Any]]) -> None:
    """All was acknowledged, nothing dropped or refused."""
    for report in reports:
        assert (report["unacked_bytes"], report["dropped"], report["rejected"]) == (0, 0, 0), report
