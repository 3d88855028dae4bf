"""A forward pass that an engine's own measurements do not count."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


@contextmanager
def unmeasured(engine: DeepSpeedEngine) -> Iterator[None]:
    """Stop the engine's clocks and its flops profiler meanwhile: they are of training, and some of them make
    the device wait."""
    from deepspeed.utils.timer import NoopTimer

    throughput, forward_timers = engine.tput_timer, engine.engine_timers.forward_timers
    engine.tput_timer, engine.engine_timers.forward_timers = NoopTimer.Timer(), []
    engine.__dict__["flops_profiler_enabled"] = lambda: False
    try:
        yield
    finally:
        engine.tput_timer, engine.engine_timers.forward_timers = throughput, forward_timers
        del engine.__dict__["flops_profiler_enabled"]
