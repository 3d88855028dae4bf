"""Values as JSON can say them."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

JsonObject: TypeAlias = dict[str, Any]


def to_json(value: Any) -> str:
    """As `json.dumps` without spaces, which never gives way to other threads before it is done: only what is
    small goes to it whole."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{_dump(name)}:{to_json(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list) and value and isinstance(value[0], list | dict):
        return "[" + ",".join(map(to_json, value)) + "]"
    return _dump(value)


def _dump(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


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
