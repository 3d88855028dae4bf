"""Running a probe in the precision of training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch


def same_autocast(device_type: str) -> Callable[[], AbstractContextManager[object]]:
    """What enters autocast again as it is at this point, to be used anywhere, as often as needed.

    Without autocast's cache: casts of weights made where gradients are off would be used again by training's
    own forward pass in the same block, and its weights would get no gradient.
    """
    enabled = torch.is_autocast_enabled(device_type)
    dtype = torch.get_autocast_dtype(device_type)
    return lambda: torch.autocast(device_type, dtype=dtype, enabled=enabled, cache_enabled=False)
