"""From routing statistics to a verdict on one memorized group: has its routing come to be shared?"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from pathwatch.server.phases.clock import Bins
from pathwatch.server.phases.evidence import Reading

POINTS_PER_BIN = 12
"""A bin is one log point plus one for this many that memorizing took."""
MIN_BINS = 8
"""Bins of memorization before the first verdict: a reference and a recent window of four each."""
RECENT = (4, 8)
"""The recent window is a tenth of the bins, at least and at most this many."""
MIN_DROP = 0.10
"""Drop of the log statistic that counts at all."""
DIMENSION_DEBIT = 0.5
"""A rising effective dimension takes this much of its rise from the drop; a falling one adds nothing."""
CUSUM_ALLOWANCE = 1.0
CUSUM_LIMIT = 5.0
"""Onset: the excess of the drop over one standard error per bin, summed up, reaches this."""
DRAGGED_SHARE = 0.3
"""Below this share of the largest drop among the other groups a group is dragged along by shared routers."""
SETTLE_BINS = 12
"""Bins from onset to confirmation at least, and the shortest stretch that must have been still."""
CONFIRM_GROWTH = 2.0
"""The drop must have grown to this many times what it was at onset, …"""
CONFIRM_Z = 4.0
"""… be this many standard errors, …"""
CONFIRM_SHARE = 0.6
"""… reach this share of the other groups' largest drop, …"""
SETTLED = 0.05
"""… and all layers must have stopped falling: over the last 8 bins by no more than this share of their drop."""
STILL_SHARE = 1 / 3
TREND_P = 0.05
WITHDRAW_SHARE = 0.5
"""A verdict is withdrawn when the drop falls under this share of its largest."""
BLOWN_UP = 3.0
"""Regressing: recent loss over this many times its level before onset, …"""
BLOWN_UP_LOSS = 0.3
"""… and above this in nats: three times next to nothing is nothing."""


class Stage(enum.Enum):
    """Where the routing of a memorized group stands."""

    APART = enum.auto()
    SHARING = enum.auto()
    SETTLED = enum.auto()
    COLLAPSED = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """How far the statistic has fallen below its level before; logs."""

    size: float
    """Fall of the sharing statistic; negative = it rose."""
    net: float
    """The same less the debit for a rising dimension; what onset is judged on."""
    stderr: float
    """Standard error of `net`: of the samples and of the steps."""
    loss: float
    """Recent median training loss, nats."""
    loss_before: float
    """The same of the reference."""


class DropWatch:
    """Follows one group from when it had memorized. Call `add` for all groups of a round, then `judge`."""

    def __init__(self, points_to_memorize: int) -> None:
        self._bins = Bins(1 + points_to_memorize // POINTS_PER_BIN)
        self._cusum = 0.0
        self._reference: NDArray[np.float64] | None = None
        self._size_at_onset = 0.0
        self._largest = 0.0
        self._fresh = False
        self.stage = Stage.APART
        self.onset_step: int | None = None
        """Step of the onset that stands; None = none does."""
        self.collapsed_once = False
        """Whether the group has collapsed since that onset."""
        self.drop: Drop | None = None
        """None while there are too few bins."""

    def add(self, step: int, reading: Reading) -> None:
        """Take in a window; windows without routing statistics tell nothing."""
        if reading.sharing_B is None or reading.depth_B is None or reading.dimension_B is None:
            self._fresh = False
            return
        loss = reading.losses_N.mean() if len(reading.losses_N) else np.nan
        values = np.concatenate([reading.sharing_B, reading.depth_B, reading.dimension_B, [loss]])
        self._fresh = bool(np.isfinite(values).all()) and self._bins.add(step, values)
        if self._fresh and len(self._bins) >= MIN_BINS:
            self.drop = self._measure_drop()

    def judge(self, step: int, largest_other: float, may_settle: bool) -> None:
        """Move the stage. `largest_other` is the largest drop of the run's other groups."""
        if not self._fresh or self.drop is None:
            return
        drop = self.drop
        dragged = drop.size < DRAGGED_SHARE * largest_other
        if self.stage is Stage.APART:
            counts = drop.net >= MIN_DROP and not dragged
            self._cusum = max(0.0, self._cusum + drop.net / drop.stderr - CUSUM_ALLOWANCE) if counts else 0.0
            if self._cusum >= CUSUM_LIMIT:
                self.stage, self.onset_step = Stage.SHARING, step
                self._size_at_onset = self._largest = drop.size
            return
        self._largest = max(self._largest, drop.size)
        blown_up = drop.loss > max(BLOWN_UP * drop.loss_before, BLOWN_UP_LOSS)
        if blown_up:
            self.stage, self.collapsed_once = Stage.COLLAPSED, True
        elif drop.size < WITHDRAW_SHARE * self._largest or (
            self.stage is Stage.SHARING and drop.size < WITHDRAW_SHARE * DRAGGED_SHARE * largest_other
        ):
            self._withdraw()
        elif self.stage is Stage.COLLAPSED:
            self.stage = Stage.SHARING
        elif self.stage is Stage.SHARING and may_settle and self._settled(drop, largest_other):
            self.stage = Stage.SETTLED

    def _measure_drop(self) -> Drop:
        means = self._bins.means
        width = int(np.clip(len(means) // 10, *RECENT))
        recent = np.median(means[-width:], axis=0)
        if self.stage is Stage.APART:
            self._reference = np.median(means[:-width], axis=0)
        assert self._reference is not None
        sharing_B, depth_B, dimension_B, loss = _parts(recent - self._reference)
        net_B = -sharing_B - DIMENSION_DEBIT * np.maximum(dimension_B, 0.0)
        of_steps = _step_noise(means[:, 0]) / np.sqrt(width)
        return Drop(
            size=float(-sharing_B[0]),
            net=float(net_B[0]),
            stderr=float(np.hypot(net_B[1:].std(ddof=1), of_steps)) + 1e-9,
            loss=float(recent[-1]),
            loss_before=float(self._reference[-1]),
        )

    def _settled(self, drop: Drop, largest_other: float) -> bool:
        assert self.onset_step is not None
        since = int((self._bins.steps > self.onset_step).sum())
        large = drop.size >= max(
            CONFIRM_GROWTH * self._size_at_onset, CONFIRM_Z * drop.stderr, CONFIRM_SHARE * largest_other
        )
        return (
            since >= SETTLE_BINS
            and large
            and self._sound(drop)
            and self._still(max(SETTLE_BINS, int(STILL_SHARE * since)))
        )

    def _sound(self, drop: Drop) -> bool:
        """Whether the newest bin still shows the drop and a loss near the recent: else a collapse may be under way."""
        newest = self._bins.means[-1]
        assert self._reference is not None
        kept = self._reference[0] - newest[0] >= WITHDRAW_SHARE * drop.size
        return bool(kept and newest[-1] <= max(BLOWN_UP * drop.loss, BLOWN_UP_LOSS))

    def _still(self, bins: int) -> bool:
        """Whether depth and dimension have stopped falling over the last bins."""
        sharing_BN, depth_BN, dimension_BN, _ = _parts(self._bins.means[-bins:].T)
        level_N = sharing_BN[0] + depth_BN[0] + dimension_BN[0]
        assert self._reference is not None
        sharing_B, depth_B, dimension_B, _ = _parts(self._reference)
        early, late = np.median(level_N[: bins // 2]), np.median(level_N[bins // 2 :])
        fallen = sharing_B[0] + depth_B[0] + dimension_B[0] - late
        trend = kendalltau(np.arange(bins), level_N)
        falling = trend.statistic < 0 and trend.pvalue < TREND_P
        return bool(early - late <= SETTLED * fallen and not falling)

    def _withdraw(self) -> None:
        self.stage, self.onset_step, self._cusum, self.collapsed_once = Stage.APART, None, 0.0, False


def _parts(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Sharing, depth, dimension and loss of a bin's values (first axis)."""
    resamples = (len(values) - 1) // 3
    return tuple(np.split(values, [resamples, 2 * resamples, 3 * resamples]))


def _step_noise(values_N: NDArray[np.float64]) -> float:
    """Robust standard deviation of a bin about its neighbours."""
    change_N = np.diff(values_N)
    return float(1.4826 * np.median(np.abs(change_N - np.median(change_N))) / np.sqrt(2))
