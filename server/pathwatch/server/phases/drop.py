"""How far a group's routing has drawn together since it was memorized, and how sure that is."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.phases.evidence import Reading

RECENT_BINS = (4, 8)
"""The recent window is a tenth of the bins, at least and at most this many."""
DIMENSION_DEBIT = 0.5
"""A rising effective dimension takes this share of its rise from the drop; a falling one, which a group that
only memorizes is dragged into by shared routers, adds nothing."""
WITHDRAW_SHARE = 0.5
"""A drop that falls under this share of its largest is no longer one."""
BLOWN_UP = 3.0
"""Recent loss over this many times its level before onset has blown up, …"""
BLOWN_UP_LOSS = 0.3
"""… if it is above this in nats: three times next to nothing is nothing."""


class Row(enum.IntEnum):
    """Rows of a bin's values [Row, B]; B = the estimate, then its resamples."""

    SHARING = 0
    DEPTH = 1
    DIMENSION = 2
    LOSS = 3
    """Mean training loss, the same in all resamples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """How far the sharing statistic has fallen below its level before; logs."""

    size: float
    """Fall of the statistic; negative = it rose."""
    net: float
    """The same less the debit for a rising dimension; onset is judged on it."""
    stderr: float
    """Standard error of `net`, from the choice of samples and from the noise of steps."""
    loss: float
    """Recent median training loss, nats."""
    loss_before: float
    """The same of the reference."""

    @property
    def blown_up(self) -> bool:
        """Whether the training loss is far above what it was before."""
        return self.loss > max(BLOWN_UP * self.loss_before, BLOWN_UP_LOSS)


def values_of(reading: Reading) -> NDArray[np.float64] | None:
    """Values [Row, B] of a window; None where routing or losses are missing."""
    if reading.sharing_B is None or reading.depth_B is None or reading.dimension_B is None:
        return None
    if not len(reading.losses_N):
        return None
    loss_B = np.full_like(reading.sharing_B, reading.losses_N.mean())
    values = np.stack([reading.sharing_B, reading.depth_B, reading.dimension_B, loss_B])
    return values if np.isfinite(values).all() else None


def recent_bins(bins: int) -> int:
    """Bins in the recent window when there are this many in all."""
    return int(np.clip(bins // 10, *RECENT_BINS))


def level_before(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median [Row, B] of the bins [T, Row, B] before the recent window."""
    level: NDArray[np.float64] = np.median(means[: -recent_bins(len(means))], axis=0)
    return level


def measure_drop(means: NDArray[np.float64], reference: NDArray[np.float64]) -> Drop:
    """The drop of the recent window's median under a reference [Row, B]."""
    width = recent_bins(len(means))
    recent = np.median(means[-width:], axis=0)
    fall = reference - recent
    net_B = fall[Row.SHARING] - DIMENSION_DEBIT * np.maximum(-fall[Row.DIMENSION], 0.0)
    of_steps = _step_noise(means[:, Row.SHARING, 0]) / np.sqrt(width)
    return Drop(
        size=float(fall[Row.SHARING, 0]),
        net=float(net_B[0]),
        # Held above zero: routing that is the same in all resamples is still not known without error.
        stderr=max(float(np.hypot(net_B[1:].std(ddof=1), of_steps)), 1e-6),
        loss=float(recent[Row.LOSS, 0]),
        loss_before=float(reference[Row.LOSS, 0]),
    )


def _step_noise(values_T: NDArray[np.float64]) -> float:
    """Robust standard deviation of a bin about its neighbours."""
    change_T = np.diff(values_T)
    return float(1.4826 * np.median(np.abs(change_T - np.median(change_T))) / np.sqrt(2))
