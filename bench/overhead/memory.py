"""Memory of this process: its peak, and what tensors hold."""

from __future__ import annotations

import gc
from pathlib import Path

import torch


def reset_peak() -> None:
    """The peak is counted anew from here (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Largest resident set since `reset_peak`."""
    return _status("VmHWM")


def resident_bytes() -> int:
    """Resident set now."""
    return _status("VmRSS")


def tensor_bytes() -> int:
    """What all tensors that Python holds take, storages that are shared counted once."""
    gc.collect()
    tensors = [item for item in gc.get_objects() if issubclass(type(item), torch.Tensor)]
    storages = [tensor.untyped_storage() for tensor in tensors if tensor.layout == torch.strided]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) << 10
    raise RuntimeError(f"/proc/self/status has no {field}: memory is measured on Linux only")
