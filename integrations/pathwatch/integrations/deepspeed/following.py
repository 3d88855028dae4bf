"""Following an engine: when it begins to train, and when it has done a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pathwatch.integrations.deepspeed.place import is_pipeline
from pathwatch.integrations.deepspeed.shadowing import shadow
from pathwatch.integrations.observing import Watch

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


def follow(engine: DeepSpeedEngine, watch: Watch) -> None:
    """Call `watch.begin` before the engine's first forward pass in training, and `watch.after_step` after
    each of its optimizer steps, until the watch is closed."""
    if is_pipeline(engine):
        _follow_batches(engine, watch)
    else:
        _follow_calls(engine, watch)


def _follow_calls(engine: DeepSpeedEngine, watch: Watch) -> None:
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

    restore_forward = shadow(engine, "forward", first_forward)
    watch.on_close(restore_forward)
    watch.on_close(shadow(engine, "step", stepped))


def _follow_batches(engine: DeepSpeedEngine, watch: Watch) -> None:
    """A pipeline's `train_batch` does a whole step."""
    train_batch = engine.train_batch

    def trained(*args: Any, **kwargs: Any) -> Any:
        watch.begin()
        result = train_batch(*args, **kwargs)
        watch.after_step()
        return result

    watch.on_close(shadow(engine, "train_batch", trained))
