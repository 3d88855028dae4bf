"""The precision of what is run beside training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch


def same_autocast(device_type: str) -> Callable[[], AbstractContextManager[object]]:
    """What enters autocast again as it is at this point, anywhere and as often as needed."""
    enabled = torch.is_autocast_enabled(device_type)
    dtype = torch.get_autocast_dtype(device_type)
    return lambda: torch.autocast(device_type, dtype=dtype, enabled=enabled)


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Computes in the precision of its tensors."""
    autocast: AbstractContextManager[object] = torch.autocast(device_type, enabled=False)
    return autocast
