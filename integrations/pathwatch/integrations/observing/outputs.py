"""What a model's forward pass gives out."""

from __future__ import annotations

from torch import Tensor


def logits_of(output: object, shape: tuple[int, int] | None = None) -> Tensor | None:
    """Logits of an output: `.logits`, a tuple's first item, or itself; None if not [B, S, V].

    `shape`: what B and S must be, if that is known.
    """
    found = getattr(output, "logits", None)
    if found is None:
        found = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(found, Tensor) or found.ndim != 3:
        return None
    return found if shape is None or tuple(found.shape[:2]) == shape else None
