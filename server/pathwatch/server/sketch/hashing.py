"""The hash that decides which samples a sketch keeps: stable for ever, cheap for a client to compute."""

from __future__ import annotations

import functools
import hashlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_ALL_BITS = 2**64 - 1


def sample_hash(run: str, group: str, sample_ids_N: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Uniform 64-bit hash of each sample: its place in the bottom-k order, lower = kept first.

    Defined for any client, with arithmetic modulo 2**64:

        key  = BLAKE2b(utf8(run) + b"\\0" + utf8(group), digest of 8 bytes), read little-endian
        hash = finalizer of SplitMix64 at key + (id + 1) · 0x9E3779B97F4A7C15

    so it is output number `id` of SplitMix64 (Steele, Lea, Flood 2014) seeded with `key`. Every step
    is a bijection of the id: within a group two different samples never share a hash.
    """
    if len(sample_ids_N) == 1:
        return np.array([hash_of_one(run, group, int(sample_ids_N[0]))], np.uint64)
    key = np.uint64(_key(run, group))
    ids_N = np.ascontiguousarray(sample_ids_N, dtype=np.int64).view(np.uint64)
    mixed_N = (ids_N + np.uint64(1)) * np.uint64(_GOLDEN) + key
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(30))) * np.uint64(_MIX_1)
    mixed_N = (mixed_N ^ (mixed_N >> np.uint64(27))) * np.uint64(_MIX_2)
    return mixed_N ^ (mixed_N >> np.uint64(31))


def hash_of_one(run: str, group: str, sample_id: int) -> int:
    """The same of one sample: Python's integers are ten times as fast as arrays of one element."""
    mixed = ((sample_id + 1) * _GOLDEN + _key(run, group)) & _ALL_BITS
    mixed = ((mixed ^ (mixed >> 30)) * _MIX_1) & _ALL_BITS
    mixed = ((mixed ^ (mixed >> 27)) * _MIX_2) & _ALL_BITS
    return mixed ^ (mixed >> 31)


@functools.lru_cache(maxsize=1024)
def _key(run: str, group: str) -> int:
    digest = hashlib.blake2b(f"{run}\0{group}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
