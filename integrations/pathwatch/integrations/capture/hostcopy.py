"""A device tensor on its way to the host, without making the device wait."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopy:
    """Starts copying a float32 tensor; `ready` tells when `tensor` can be had without waiting."""

    def __init__(self, tensor: Tensor) -> None:
        tensor = tensor.detach()
        self._done: torch.Event | None = None
        if tensor.device.type == "cpu":
            self._host = tensor
            return
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._host.copy_(tensor, non_blocking=True)
        self._done = torch.Event(tensor.device.type)
        self._done.record()

    def ready(self) -> bool:
        """True once the copy has arrived."""
        return self._done is None or bool(self._done.query())

    def tensor(self) -> Tensor:
        """The values; waits for them if they are not ready."""
        if self._done is not None:
            self._done.synchronize()
        return self._host
