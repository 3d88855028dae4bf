"""The hash by which the server chooses samples, as it defines it; NumPy is loaded with this module."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def sample_hash(run: str, group: str, sample_ids_N: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Place of each sample in the order in which a window keeps them, lower = kept first.

    The finalizer of SplitMix64 (Steele, Lea, Flood 2014) at key + (id + 1) · 0x9E3779B97F4A7C15, where key =
    BLAKE2b(utf8(run) + b"\\0" + utf8(group), digest of 8 bytes), read little-endian; all modulo 2**64.
    """
    digest = hashlib.blake2b(f"{run}\0{group}".encode(), digest_size=8).digest()
    mixed_N = (sample_ids_N.view(np.uint64) + np.uint64(1)) * _GOLDEN
    mixed_N += np.uint64(int.from_bytes(digest, "little"))
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(30))) * _MIX_1
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(27))) * _MIX_2
    return mixed_N ^ (mixed_N >> np.uint64(31))
