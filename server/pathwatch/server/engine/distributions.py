"""Whether rows are weights: numbers >= 0 that sum to one. They are checked in the form they came in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 16
"""Numbers widened at once: a quarter of a megabyte, which stays in a core's cache."""


@dataclass(frozen=True, slots=True)
class _Form:
    """How the bits of a non-negative number of one type lie in those of a float32."""

    bits: type[np.uint16] | type[np.uint32]
    infinity: int
    """Bit pattern of infinity: those of NaN and of all negative numbers are larger, of all others smaller."""
    shift: int
    scale: float
    """What the shifted bits, taken for a float32, are to be multiplied by."""


_FLOAT32 = _Form(np.uint32, 0x7F800000, 0, 1.0)
_FLOAT16 = _Form(np.uint16, 0x7C00, 13, 2.0**112)
_BFLOAT16 = _Form(np.uint16, 0x7F80, 16, 1.0)


def are_plainly_distributions(rows: NDArray[np.generic], tolerance: float) -> bool:
    """Whether all rows (last axis) are finite, not negative, and sum to one within `tolerance`.

    `rows`: float32, float16, or bit patterns of bfloat16 (uint16). Sums in float32: what lies so close to the
    tolerance that rounding might decide is called False, and so is −0.0.
    """
    if not rows.size:
        return True
    experts = rows.shape[-1]
    form = {"f4": _FLOAT32, "f2": _FLOAT16, "u2": _BFLOAT16}[rows.dtype.str[1:]]
    bits_RK = np.ascontiguousarray(rows).reshape(-1, experts).view(form.bits)
    if int(bits_RK.max()) >= form.infinity:
        return False
    # A float32 sum of K numbers that come to about one is off by less than K/2 times 2^-23.
    margin = tolerance - experts * 2.0**-23
    return bool((np.abs(_sums(bits_RK, form) - np.float32(1)) <= margin).all())


def _sums(bits_RK: NDArray[np.generic], form: _Form) -> NDArray[np.float32]:
    """[R] sums of the rows. NumPy converts float16 one by one; shifting bits takes a twentieth of that."""
    if not form.shift:
        plain_R: NDArray[np.float32] = np.einsum("rk->r", bits_RK.view(np.float32))
        return plain_R
    rows, experts = bits_RK.shape
    step = max(1, _CHUNK // experts)
    widened = np.empty((min(step, rows), experts), np.uint32)
    sums_R = np.empty(rows, np.float32)
    for first in range(0, rows, step):
        chunk_rK = bits_RK[first : first + step]
        widened_rK = widened[: len(chunk_rK)]
        np.copyto(widened_rK, chunk_rK)
        widened_rK <<= np.uint32(form.shift)
        # einsum: unlike a matrix product it is no slower for the smallest numbers, which are subnormal here.
        np.einsum("rk->r", widened_rK.view(np.float32), out=sums_R[first : first + step])
    sums_R *= np.float32(form.scale)
    return sums_R
