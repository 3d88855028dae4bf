"""Values as JSON can say them."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import orjson

JsonObject: TypeAlias = dict[str, Any]


def to_json(value: Any) -> bytes:
    """As JSON without spaces, in UTF-8; what is no number (NaN, infinities) is null.

    Other threads may go on between its parts: only what is small is written at once.
    """
    if isinstance(value, dict):
        return b"{" + b",".join(_dump(name) + b":" + to_json(each) for name, each in value.items()) + b"}"
    if isinstance(value, list) and value and isinstance(value[0], list | dict):
        return b"[" + b",".join(map(to_json, value)) + b"]"
    return _dump(value)


def _dump(value: Any) -> bytes:
    return orjson.dumps(value, default=float)  # NumPy's numbers are floats by another name


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
