"""Reading the service's messages: enums as words, absent steps as None."""

from __future__ import annotations

from pathwatch.v1 import run_pb2, signal_pb2


def phase_name(phase: signal_pb2.Phase.ValueType) -> str:
    """`PHASE_GENERALIZED` → `GENERALIZED`."""
    return signal_pb2.Phase.Name(phase).removeprefix("PHASE_")


def action_name(action: signal_pb2.Action.ValueType) -> str:
    """`ACTION_STOP` → `STOP`."""
    return signal_pb2.Action.Name(action).removeprefix("ACTION_")


def state_name(state: run_pb2.RunState.ValueType) -> str:
    """`RUN_STATE_ACTIVE` → `ACTIVE`."""
    return run_pb2.RunState.Name(state).removeprefix("RUN_STATE_")


def stop_at_step(signal: signal_pb2.Signal) -> int | None:
    """None = it says no such step."""
    return signal.stop_at_step if signal.HasField("stop_at_step") else None


def best_checkpoint_step(message: signal_pb2.Signal | signal_pb2.GroupStatus) -> int | None:
    """None = there is none yet."""
    return message.best_checkpoint_step if message.HasField("best_checkpoint_step") else None


def best_checkpoint_by_group(signal: signal_pb2.Signal) -> dict[str, int]:
    """Groups without a checkpoint are absent."""
    return {
        status.group: status.best_checkpoint_step
        for status in signal.groups
        if status.HasField("best_checkpoint_step")
    }
