"""Small named arrays as bytes, without pickle."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.engine.stored_npz import read_stored_npz


def pack(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Named arrays as an .npz; ValueError for arrays of Python objects."""
    buffer = io.BytesIO()
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise ValueError(f"array {name!r} holds Python objects; use numbers")
    np.savez(buffer, allow_pickle=False, **{name: np.asarray(array) for name, array in arrays.items()})
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, NDArray[np.generic]]:
    """The arrays that `pack` was given."""
    if (arrays := read_stored_npz(data)) is not None:
        return arrays
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
