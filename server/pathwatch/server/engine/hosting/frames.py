"""What passes between the server and a hosted plug-in: plain values and arrays as bytes, without pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from pathwatch.server.engine.arrays import pack, unpack
from pathwatch.server.engine.checks import MAX_STEP
from pathwatch.server.engine.refusal import one_line
from pathwatch.server.metrics.window import Geometry, WindowArrays
from pathwatch.server.phases.verdict import (
    Action,
    Checkpoint,
    Decision,
    GroupVerdict,
    Phase,
    RankedCheckpoint,
)

MAX_REASON = 2000
"""Characters of a reason; a plug-in's words are made fit for the store and for terminals."""
ARRAY = "array:"
"""Stands, with its name, for an array in the JSON part of a frame."""


def to_frame(value: Any) -> bytes:
    """Mappings, sequences, strings, numbers, None and arrays as bytes. ValueError for arrays of objects."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    text = json.dumps(_without_arrays(value, arrays)).encode()
    return len(text).to_bytes(8, "little") + text + (pack(arrays) if arrays else b"")


def from_frame(frame: bytes) -> Any:
    """What `to_frame` was given; tuples come as lists."""
    size = int.from_bytes(frame[:8], "little")
    value, rest = json.loads(frame[8 : 8 + size]), frame[8 + size :]
    return _with_arrays(value, unpack(rest) if rest else {})


def from_window(window: WindowArrays) -> dict[str, Any]:
    """A window as plain values."""
    return {field.name: getattr(window, field.name) for field in fields(window)}


def to_window(value: Mapping[str, Any]) -> WindowArrays:
    """The window that `from_window` was given."""
    return WindowArrays(**value)


def from_geometry(geometry: Geometry | None) -> dict[str, Any] | None:
    """A geometry as plain values."""
    if geometry is None:
        return None
    return {field.name: getattr(geometry, field.name) for field in fields(geometry)}


def to_geometry(value: Mapping[str, Any] | None) -> Geometry | None:
    """The geometry that `from_geometry` was given."""
    return Geometry(**value) if value else None


def from_verdicts(verdicts: Mapping[str, GroupVerdict]) -> dict[str, Any]:
    """Verdicts as plain values."""
    return {
        group: {
            "phase": int(verdict.phase),
            "since_step": int(verdict.since_step),
            "reason": str(verdict.reason),
            "numbers": {str(name): float(number) for name, number in verdict.numbers.items()},
        }
        for group, verdict in verdicts.items()
    }


def to_verdicts(value: Mapping[str, Any]) -> dict[str, GroupVerdict]:
    """The verdicts that `from_verdicts` was given. ValueError for a phase or step there is not."""
    return {group: _to_verdict(**fields_) for group, fields_ in value.items()}


def _to_verdict(phase: int, since_step: int, reason: str, numbers: Mapping[str, float]) -> GroupVerdict:
    if not -1 <= since_step <= MAX_STEP:
        raise ValueError(f"since_step is {since_step}, which is no step")
    return GroupVerdict(
        phase=Phase(phase),
        since_step=since_step,
        reason=one_line(reason, MAX_REASON),
        numbers={one_line(name): number for name, number in numbers.items()},
    )


def from_decision(decision: Decision) -> dict[str, Any]:
    """A decision as plain values."""
    return {"action": int(decision.action), "reason": str(decision.reason)}


def to_decision(value: Mapping[str, Any]) -> Decision:
    """The decision that `from_decision` was given. ValueError for an action there is not."""
    return Decision(action=Action(value["action"]), reason=one_line(value["reason"], MAX_REASON))


def from_checkpoints(checkpoints: Sequence[Checkpoint]) -> list[dict[str, Any]]:
    """Checkpoints as plain values."""
    return [{"step": int(point.step), "tag": point.tag, "attempt": point.attempt} for point in checkpoints]


def to_checkpoints(value: Sequence[Mapping[str, Any]]) -> list[Checkpoint]:
    """The checkpoints that `from_checkpoints` was given."""
    return [Checkpoint(**fields_) for fields_ in value]


def from_ranking(ranking: Sequence[RankedCheckpoint]) -> list[dict[str, Any]]:
    """A ranking as plain values."""
    points = from_checkpoints([place.checkpoint for place in ranking])
    return [
        {"checkpoint": point, "score": float(place.score), "reason": str(place.reason)}
        for point, place in zip(points, ranking, strict=True)
    ]


def to_ranking(value: Sequence[Mapping[str, Any]]) -> list[RankedCheckpoint]:
    """The ranking that `from_ranking` was given."""
    return [
        RankedCheckpoint(
            checkpoint=Checkpoint(**place["checkpoint"]),
            score=place["score"],
            reason=one_line(place["reason"], MAX_REASON),
        )
        for place in value
    ]


def _without_arrays(value: Any, arrays: dict[str, np.ndarray[Any, Any]], key: str = "") -> Any:
    if isinstance(value, np.ndarray | np.generic):
        name = key if key not in arrays else f"{key}~{len(arrays)}"
        arrays[name] = np.asarray(value)
        return {ARRAY: name}
    if isinstance(value, Mapping):
        return {str(inner): _without_arrays(item, arrays, str(inner)) for inner, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(item, arrays, key) for item in value]
    return value


def _with_arrays(value: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {ARRAY}:
            return arrays[value[ARRAY]]
        return {key: _with_arrays(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_arrays(item, arrays) for item in value]
    return value
