"""Putting a method before an engine's own, and taking it away again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


def shadow(engine: DeepSpeedEngine, name: str, method: Callable[..., Any]) -> Callable[[], None]:
    """Put `method` before the engine's own; returns what takes it away again, once."""
    before = engine.__dict__.get(name)
    engine.__dict__[name] = method

    def undo() -> None:
        if engine.__dict__.get(name) is method:
            del engine.__dict__[name]
            if before is not None:
                engine.__dict__[name] = before

    return undo
