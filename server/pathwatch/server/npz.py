"""Reading `.npz` archives that someone else wrote: no pickles, no bombs, and one kind of error."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

UNPACKED_BYTES = 256 << 20
"""Every archive may unpack to this much, …"""
UNPACKED_RATIO = 100
"""… larger ones to this many times their size; recorded runs reach 30 in their most regular array."""

_MAX_CODE_POINT = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class NpzError(ValueError):
    """The file cannot be read; the message is one line without the file's name."""


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of the archive by name; raises `NpzError`.

    What the archive says of itself is checked before memory is taken for it: an array has the size that its
    header states, and the whole does not unpack to a multiple that no recorded run reaches. Text is text.
    """
    if not path.is_file():
        raise NpzError("no such file")
    try:
        if not zipfile.is_zipfile(path):
            raise NpzError("no zip archive, or its end is cut off")
        _check_archive(path)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
        for name, array in arrays.items():
            _check_text(name, array)
    except Exception as error:  # numpy, zipfile and zlib raise a dozen kinds on damaged archives
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise NpzError(f"not a readable .npz file: {text}") from None
    return arrays


def _check_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        unpacked = sum(member.file_size for member in members)
        if unpacked > max(UNPACKED_BYTES, UNPACKED_RATIO * path.stat().st_size):
            raise NpzError(
                f"unpacks to {unpacked >> 20} MiB, more than {UNPACKED_RATIO} times its size: it is not read"
            )
        for member in members:
            with archive.open(member) as file:
                _check_array(member.filename, file, member.file_size)


def _check_array(name: str, file: IO[bytes], size: int) -> None:
    """The header must state what follows it."""
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise NpzError(f"{name!r} is an array of format {version}; wanted 1.0 or 2.0")
    shape, _, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise NpzError(f"{name!r} is pickled: Object arrays cannot be loaded, numbers and text can")
    # Elements of no size at all could be any number.
    stated, there = math.prod(shape) * max(dtype.itemsize, 1), size - file.tell()
    if stated != there:
        raise NpzError(f"{name!r} states {stated} bytes of elements and has {there}")


def _check_text(name: str, array: NDArray[Any]) -> None:
    if array.dtype.kind != "U":
        return
    points = np.frombuffer(array.tobytes(), np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
    fine = (points <= _MAX_CODE_POINT) & ~np.isin(points, _SURROGATES)
    if not fine.all():
        raise NpzError(f"{name!r} is no text: it holds {hex(points[np.argmin(fine)])}, which is no character")
