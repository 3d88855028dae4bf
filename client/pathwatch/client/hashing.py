"""The hash by which the server chooses samples, as it defines it; NumPy is loaded with this module."""

from __future__ import annotations

import functools
import hashlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_1, _SHIFT_2, _SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)
_ONE = np.uint64(1)


def sample_hash(run: str, group: str, sample_ids_N: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Place of each sample in the order in which a window keeps them, lower = kept first.

    The finalizer of SplitMix64 (Steele, Lea, Flood 2014) at key + (id + 1) · 0x9E3779B97F4A7C15, where key =
    BLAKE2b(utf8(run) + b"\\0" + utf8(group), digest of 8 bytes), read little-endian; all modulo 2**64.
    """
    mixed_N = (sample_ids_N.view(np.uint64) + _ONE) * _GOLDEN
    mixed_N += _key(run, group)
    mixed_N = (mixed_N ^ (mixed_N >> _SHIFT_1)) * _MIX_1
    mixed_N = (mixed_N ^ (mixed_N >> _SHIFT_2)) * _MIX_2
    return mixed_N ^ (mixed_N >> _SHIFT_3)


@functools.lru_cache(maxsize=1000)
def _key(run: str, group: str) -> np.uint64:
    digest = hashlib.blake2b(f"{run}\0{group}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))
