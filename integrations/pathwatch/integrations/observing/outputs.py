"""What a model's forward pass gives out."""

from __future__ import annotations

from torch import Tensor


def logits_of(output: object) -> Tensor | None:
    """Logits of an output: `.logits`, a tuple's first item, or itself; None if not [B, S, V]."""
    found = getattr(output, "logits", None)
    if found is None:
        found = output[0] if isinstance(output, tuple | list) and output else output
    return found if isinstance(found, Tensor) and found.ndim == 3 else None
