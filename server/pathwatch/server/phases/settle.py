"""Whether the routing of a group that came to be shared has stopped changing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.phases.drop import BLOWN_UP, BLOWN_UP_LOSS, WITHDRAW_SHARE, Drop, Row
from pathwatch.server.phases.kendall import kendall_trend

SETTLE_BINS = 12
"""Bins from onset to confirmation at least; as many must have been still."""
SETTLED = 0.05
"""Still: their later half is lower than the earlier by at most this share of the whole fall, …"""
TREND_P = 0.05
"""… and Kendall's test finds no falling trend in them."""
CONFIRM_GROWTH = 2.0
"""The drop must have grown to this many times what it was at onset, …"""
CONFIRM_DROP = 0.6
"""… or to this (the affinity nearly halved), where onset was seen late, with most of the drop behind it, …"""
CONFIRM_Z = 4.0
"""… be this many standard errors, …"""
CONFIRM_SHARE = 0.6
"""… and reach this share of the largest drop among the other groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Onset:
    """When sharing began."""

    step: int
    size: float
    """Size of the drop then."""
    reference: NDArray[np.float64]
    """Level before it, [Row, B]."""


def settled(
    steps_T: NDArray[np.int64], means: NDArray[np.float64], onset: Onset, drop: Drop, largest_other: float
) -> bool:
    """Judges bins [T, Row, B] with their last steps."""
    since = int((steps_T > onset.step).sum())
    grown = min(CONFIRM_GROWTH * onset.size, max(CONFIRM_DROP, onset.size))
    needed = max(grown, CONFIRM_Z * drop.stderr, CONFIRM_SHARE * largest_other)
    if since < SETTLE_BINS or drop.size < needed or not _sound(means[-1, :, 0], onset, drop):
        return False
    return _still(means[-SETTLE_BINS:, :, 0], onset.reference[:, 0])


def _sound(newest: NDArray[np.float64], onset: Onset, drop: Drop) -> bool:
    """Whether the newest bin still shows the drop and the recent loss: else a collapse may be under way."""
    kept = onset.reference[Row.SHARING, 0] - newest[Row.SHARING] >= WITHDRAW_SHARE * drop.size
    return bool(kept and newest[Row.LOSS] <= max(BLOWN_UP * drop.loss, BLOWN_UP_LOSS))


def _still(stretch: NDArray[np.float64], reference: NDArray[np.float64]) -> bool:
    """Whether last layer, all layers and dimension together have stopped falling; the last layer alone
    settles before accuracy does."""
    level_T = stretch[:, : Row.LOSS].sum(axis=1)
    half = len(level_T) // 2
    early, late = np.median(level_T[:half]), np.median(level_T[half:])
    fall = reference[: Row.LOSS].sum() - late
    trend = kendall_trend(level_T)
    falling = trend.balance < 0 and trend.p_value < TREND_P
    return bool(early - late <= SETTLED * fall and not falling)
