"""What the service says, in DeepSpeed's own monitor (TensorBoard, W&B, Comet, CSV)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pathwatch.integrations.observing import Watch, scalars

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


def write_to_monitor(engine: DeepSpeedEngine, watch: Watch) -> None:
    """Write every new signal to the engine's monitor, if there is one; against global samples."""
    if engine.monitor.enabled:
        watch.on_signal(
            "writing to DeepSpeed's monitor",
            lambda signal: engine.monitor.write_events(
                [(name, value, engine.global_samples) for name, value in scalars(signal).items()]
            ),
        )
