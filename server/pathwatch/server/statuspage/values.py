"""Values as JSON can say them."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

JsonObject: TypeAlias = dict[str, Any]


def time_text(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC, to the millisecond: `2026-11-22T09:30:00.000Z`."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def number(value: float) -> float | None:
    """JSON knows no NaN and no infinities: what is none is absent."""
    return value if math.isfinite(value) else None


def numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers by name, in the order of names."""
    return {name: number(value) for name, value in sorted(values.items())}
