"""Reading `.npz` archives that someone else wrote: no pickles, and one kind of error."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class NpzError(ValueError):
    """The file cannot be read; the message is one line without the file's name."""


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of the archive by name; raises `NpzError`."""
    if not path.is_file():
        raise NpzError("no such file")
    try:
        if not zipfile.is_zipfile(path):
            raise NpzError("no zip archive, or its end is cut off")
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in file.files}
    except Exception as error:  # numpy, zipfile and zlib raise a dozen kinds on damaged archives
        text = " ".join(str(error).split()) or type(error).__name__
        raise NpzError(f"not a readable .npz file: {text}") from None
