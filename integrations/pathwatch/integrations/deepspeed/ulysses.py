"""What Ulysses attention for transformers models does in evaluation mode."""

from __future__ import annotations

import inspect

from torch import nn


def check_evaluation(module: nn.Module) -> None:
    """Whether attention joins the parts of a sequence in evaluation mode, too.

    Raises:
        ValueError: it was registered with `disable_in_eval=True`, as accelerate and Trainer do.
    """
    name = getattr(getattr(module, "config", None), "_attn_implementation", None)
    if name is None:
        return
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    attention = ALL_ATTENTION_FUNCTIONS.get(name)
    if not inspect.isfunction(attention):
        return
    ulysses = inspect.getclosurevars(attention).nonlocals.get("uattn")
    if getattr(ulysses, "disable_in_eval", False):
        raise ValueError(
            "Ulysses attention was registered with disable_in_eval=True: in evaluation mode each rank would "
            "see its part of the probe's tokens alone. Register it without, or use stream mode"
        )
