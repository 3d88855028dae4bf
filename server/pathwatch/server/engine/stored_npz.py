"""Reads what `np.savez` writes, without what `np.load` spends on each array: a zip archive's machinery, and
the header, a Python literal, compiled anew. Histories are hundreds of thousands of small archives that are
all alike."""

from __future__ import annotations

import io
import math
import struct
import zlib
from functools import lru_cache

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

_END = struct.Struct("<4s4H2LH")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAGIC = b"\x93NUMPY\x01\x00"
_BEFORE_HEADER = len(_MAGIC) + 2
_SUFFIX = b".npy"


def read_stored_npz(data: bytes) -> dict[str, NDArray[np.generic]] | None:
    """The arrays of an archive that is just as `np.savez` writes it, uncompressed, checksums compared.

    None where anything is not: it may be damaged, or another way of writing the same; `np.load` tells.
    """
    try:
        return _arrays(data)
    except (struct.error, ValueError):
        return None


def _arrays(data: bytes) -> dict[str, NDArray[np.generic]]:
    end_at = len(data) - _END.size
    signature, disk, _, _, entries, size, entry_at, comment = _END.unpack_from(data, end_at)
    _require(signature == b"PK\5\6" and disk == 0 and comment == 0 and entry_at + size == end_at)
    arrays = {}
    for _ in range(entries):
        entry = _ENTRY.unpack_from(data, entry_at)
        (signature, *_, flags, method, _, _, crc, packed, size, name_size, extra, comment, _, _, _, at) = (
            entry
        )
        _require(signature == b"PK\1\2" and flags == 0 and method == 0 and packed == size)
        name_at = entry_at + _ENTRY.size
        name = data[name_at : name_at + name_size]
        entry_at = name_at + name_size + extra + comment
        local_signature, *_, local_name_size, local_extra = _LOCAL.unpack_from(data, at)
        local_name_at = at + _LOCAL.size
        first = local_name_at + local_name_size + local_extra
        _require(local_signature == b"PK\3\4" and data[local_name_at : local_name_at + name_size] == name)
        content = memoryview(data)[first : first + size]
        _require(name.endswith(_SUFFIX) and len(content) == size and zlib.crc32(content) == crc)
        arrays[name[: -len(_SUFFIX)].decode("ascii")] = _array(content)
    _require(entry_at == end_at and len(arrays) == entries)
    return arrays


def _array(content: memoryview) -> NDArray[np.generic]:
    _require(bytes(content[: len(_MAGIC)]) == _MAGIC)
    (header_size,) = struct.unpack_from("<H", content, len(_MAGIC))
    data_at = _BEFORE_HEADER + header_size
    shape, dtype = _header(bytes(content[:data_at]))
    _require(math.prod(shape) * dtype.itemsize == len(content) - data_at)
    # A copy is aligned, may be written to, and lets go of the archive.
    return np.frombuffer(content[data_at:], dtype).reshape(shape).copy()


@lru_cache(maxsize=1024)
def _header(data: bytes) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and element type of an array in C order, by all that stands before its elements."""
    file = io.BytesIO(data)
    npy.read_magic(file)
    shape, fortran, dtype = npy.read_array_header_1_0(file)
    _require(not fortran and not dtype.hasobject and dtype.itemsize > 0)
    return shape, dtype


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError("not as np.savez writes it")
