"""Following an engine: when it begins to train, and when it has done a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pathwatch.integrations.observing import Watch

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


def follow(engine: DeepSpeedEngine, watch: Watch) -> None:
    """Call `watch.begin` before the engine's first forward pass in training, and `watch.after_step` after
    each of its optimizer steps, until the watch is closed."""
    forward, step = engine.forward, engine.step

    def first_forward(*args: Any, **kwargs: Any) -> Any:
        if engine.module.training:
            restore_forward()
            watch.begin()
        return forward(*args, **kwargs)

    def stepped(*args: Any, **kwargs: Any) -> Any:
        before = engine.global_steps
        result = step(*args, **kwargs)
        if engine.global_steps != before:
            watch.after_step()
        return result

    restore_forward = _shadow(engine, "forward", first_forward)
    watch.on_close(restore_forward)
    watch.on_close(_shadow(engine, "step", stepped))


def _shadow(engine: DeepSpeedEngine, name: str, method: Callable[..., Any]) -> Callable[[], None]:
    """Put `method` before the engine's own; returns what takes it away again, once."""
    before = engine.__dict__.get(name)
    engine.__dict__[name] = method

    def undo() -> None:
        if engine.__dict__.get(name) is method:
            del engine.__dict__[name]
            if before is not None:
                engine.__dict__[name] = before

    return undo
