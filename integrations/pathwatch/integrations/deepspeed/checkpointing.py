"""The watch's state in DeepSpeed's checkpoints, and checkpoints made known as they are saved."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathwatch.client.logs import QuietLogger
from pathwatch.integrations.deepspeed.shadowing import shadow
from pathwatch.integrations.observing import Watch

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

_logger = QuietLogger("pathwatch.integrations")

STATE = "pathwatch"
"""Key of the watch's state in `client_state`."""


def keep_in_checkpoints(engine: DeepSpeedEngine, watch: Watch) -> None:
    """Have `save_checkpoint` hold the watch's state and make the checkpoint known, and `load_checkpoint` give
    the state back, until the watch is closed."""
    save, load = engine.save_checkpoint, engine.load_checkpoint

    def saved(*args: Any, **kwargs: Any) -> Any:
        call = signature(save).bind(*args, **kwargs)
        tag = call.arguments.get("tag")
        tag = f"global_step{engine.global_steps}" if tag is None else str(tag)
        folder = Path(call.arguments["save_dir"]) / tag
        state = watch.state_dict(tag, folder)
        if state:
            call.arguments["client_state"] = {**(call.arguments.get("client_state") or {}), STATE: state}
        result = save(*call.args, **call.kwargs)
        watch.checkpoint_saved(tag, folder)
        watch.checkpoint_answered()
        return result

    def loaded(*args: Any, **kwargs: Any) -> Any:
        call = signature(load).bind(*args, **kwargs)
        path, client_state = load(*args, **kwargs)
        # Weights alone begin a new training: its steps are not those of the checkpoint.
        if path is not None and not call.arguments.get("load_module_only"):
            watch.load_state_dict(state_in(client_state))
        return path, client_state

    watch.on_close(shadow(engine, "save_checkpoint", saved))
    watch.on_close(shadow(engine, "load_checkpoint", loaded))


def state_in(client_state: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The watch's state in what `load_checkpoint` gave back; empty, which is logged, where there is none."""
    state = (client_state or {}).get(STATE)
    if isinstance(state, Mapping):
        return state
    _logger.info("pathwatch: the loaded checkpoint holds no state of a watch")
    return {}
