"""A signal as numbers, for the loggers of training frameworks."""

from __future__ import annotations

from pathwatch.v1 import signal_pb2


def scalars(signal: signal_pb2.Signal) -> dict[str, float]:
    """Numbers of a signal by their name in a training log.

    `Pathwatch/<group>/phase` is the number of the phase in `pathwatch.v1.Phase` (4 = GENERALIZING), beside it
    the evidence under its own names; `Pathwatch/stop_at_step` and best checkpoints are steps, left out while
    there is none.
    """
    values: dict[str, float] = {"Pathwatch/action": signal.action}
    if signal.HasField("stop_at_step"):
        values["Pathwatch/stop_at_step"] = signal.stop_at_step
    if signal.HasField("best_checkpoint_step"):
        values["Pathwatch/best_checkpoint_step"] = signal.best_checkpoint_step
    for status in signal.groups:
        # Slashes part the levels of a name.
        room = f"Pathwatch/{status.group.replace('/', '_')}"
        values[f"{room}/phase"] = status.phase
        if status.HasField("best_checkpoint_step"):
            values[f"{room}/best_checkpoint_step"] = status.best_checkpoint_step
        values |= {f"{room}/{name}": number for name, number in sorted(status.evidence.items())}
    return values
