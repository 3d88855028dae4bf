"""A watch's state in a Trainer's checkpoints."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerState

from pathwatch.client.logs import QuietLogger

_KEY = "pathwatch"
_FILE = "trainer_state.json"
_logger = QuietLogger("pathwatch.integrations")


def keep(state: TrainerState, watch_state: dict[str, Any], folder: Path, *, write: bool) -> None:
    """Put a watch's state into the Trainer's own, and, on the rank that writes, into a saved checkpoint.

    Among the states of callbacks, which Trainer restores wherever a checkpoint is resumed from. It asks the
    ranks that save for them, but making a watch's state takes all ranks; so it is added after the save.

    Args:
        state: Trainer's.
        watch_state: tensors and plain Python.
        folder: the checkpoint that Trainer has just saved.
        write: whether this rank is one that saved it.
    """
    packed = io.BytesIO()
    torch.save(watch_state, packed)
    state.stateful_callbacks[_KEY] = base64.b64encode(packed.getvalue()).decode()
    if not write:
        return
    try:
        state.save_to_json(str(folder / f"{_FILE}.pathwatch"))
        os.replace(folder / f"{_FILE}.pathwatch", folder / _FILE)
    except OSError as error:
        _logger.warning(
            "pathwatch cannot add its state to %s (%s): a job resumed from it will not know its visits",
            folder,
            error,
        )


def kept(state: TrainerState) -> dict[str, Any] | None:
    """The watch's state in a Trainer's that was restored; None if there is none that can be read."""
    packed = (state.stateful_callbacks or {}).get(_KEY)
    if packed is None:
        return None
    try:
        unpacked: dict[str, Any] = torch.load(io.BytesIO(base64.b64decode(packed)), weights_only=True)
    except Exception as error:
        _logger.warning("pathwatch cannot read its state in the checkpoint resumed from: %s", error)
        return None
    return unpacked
