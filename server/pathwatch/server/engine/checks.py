"""What the numbers of a batch must be; refusals name the sample, and the layer where there is one."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.engine.distributions import are_plainly_distributions
from pathwatch.server.engine.tensors import HALF, as_float32, invalid

HALF_TOLERANCE = 0.01
"""How far from one a row of half precision may sum."""
FLOAT32_TOLERANCE = 1e-3
"""How far from one a row of single precision may sum."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
MAX_STEP = 2**53 - 1
"""Largest step: up to it JSON, Prometheus and float64 tell neighbours apart, and it is so far below 2^63 that
ends of windows and margins can be added."""
NOT_ONE = "routing weights of a layer must be >= 0 and sum to one; router logits are sent as `raw` scores"


def check_step(field: str, step: int) -> None:
    """Refuse what no training step can be."""
    if not 0 <= step <= MAX_STEP:
        raise invalid(field, f"is {step}; steps count from 0 and stay below 2^53")


def check_text(field: str, text: str, most: int) -> None:
    """Refuse text longer than `most` characters or with control characters: tables and logs show it."""
    if len(text) > most:
        raise invalid(field, f"has {len(text)} characters, at most {most}")
    if _CONTROL.search(text):
        raise invalid(field, "holds control characters")


def check_distributions(
    field: str,
    rows: NDArray[np.generic],
    dtype: int,
    sample_ids_N: NDArray[np.int64],
    *,
    float32_tolerance: float = FLOAT32_TOLERANCE,
) -> None:
    """Refuse rows (last axis) that are not weights: not finite, negative, or not summing to one.

    `rows` [n, L, K] as they came in a tensor of this element type, or as float32.
    """
    tolerance = HALF_TOLERANCE if dtype in HALF else float32_tolerance
    if are_plainly_distributions(rows, tolerance):
        return
    rows_NLK = as_float32(rows, dtype)
    check_rows(field, np.isfinite(rows_NLK), sample_ids_N, "NaN or Inf")
    check_rows(field, rows_NLK >= 0, sample_ids_N, f"a negative weight; {NOT_ONE}")
    sums_NL = rows_NLK.sum(axis=-1, dtype=np.float64)
    wrong_NL = np.abs(sums_NL - 1) > tolerance
    if not wrong_NL.any():
        return
    i, layer = np.argwhere(wrong_NL)[0]
    check_rows(field, ~wrong_NL, sample_ids_N, f"weights that sum to {sums_NL[i, layer]:.4g}; {NOT_ONE}")


def check_rows(field: str, fine: NDArray[np.bool_], sample_ids_N: NDArray[np.int64], message: str) -> None:
    """Refuse the first sample (axis 0) and layer (axis 1) that is not fine."""
    if fine.all():
        return
    i, layer = np.argwhere(~fine)[0][:2]
    sample_id = int(sample_ids_N[i])
    raise invalid(field, f"sample {sample_id}, layer {layer} has {message}", sample_id)


def check_samples(
    field: str, fine_N: NDArray[np.bool_], sample_ids_N: NDArray[np.int64], message: str
) -> None:
    """Refuse the first sample that is not fine."""
    if not fine_N.all():
        sample_id = int(sample_ids_N[np.argmin(fine_N)])
        raise invalid(field, f"sample {sample_id} has {message}", sample_id)
