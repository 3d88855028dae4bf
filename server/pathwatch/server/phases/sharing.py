"""From routing statistics to a verdict on one memorized group: has its routing come to be shared?"""

from __future__ import annotations

import enum

from pathwatch.server.phases.clock import Bins
from pathwatch.server.phases.drop import (
    RECENT_BINS,
    WITHDRAW_SHARE,
    Drop,
    level_before,
    measure_drop,
    values_of,
)
from pathwatch.server.phases.evidence import Reading
from pathwatch.server.phases.settle import Onset, settled

POINTS_PER_BIN = 12
"""A bin is one log point, and one more for each of this many that memorizing took."""
MIN_BINS = 8
"""Bins of memorization before the first verdict: a reference and a recent window of four each."""
MIN_DROP = 0.12
"""Drop of the log statistic that counts at all."""
CUSUM_ALLOWANCE = 1.0
"""Standard errors per bin that are taken for noise."""
CUSUM_LIMIT = 5.0
"""Onset: what the drop exceeds the allowance by, in standard errors, summed over bins in a row."""
DRAGGED_SHARE = 0.3
"""Below this share of the largest drop among the other groups a group is dragged along by shared routers."""


class Stage(enum.Enum):
    """Where the routing of a memorized group stands."""

    APART = enum.auto()
    SHARING = enum.auto()
    SETTLED = enum.auto()
    COLLAPSED = enum.auto()


class SharingWatch:
    """Follows one group from when it was memorized. Call `add` for all groups of a round, then `judge`."""

    def __init__(self, points_to_memorize: int, onset: Onset | None = None) -> None:
        """`onset`: given where routing was shared already when the group was memorized (`joint`)."""
        self._bins = Bins(1 + points_to_memorize // POINTS_PER_BIN)
        self._cusum = 0.0
        self._largest = 0.0
        self._fresh = False
        self.stage = Stage.APART if onset is None else Stage.SHARING
        self.onset = onset
        """The onset that stands; None = none does."""
        self.collapsed_once = False
        """Whether the group has collapsed since that onset."""
        self.drop: Drop | None = None
        """None while there are too few bins."""

    def add(self, step: int, reading: Reading) -> None:
        """Take in a window; one without routing statistics tells nothing."""
        values = values_of(reading)
        needed = MIN_BINS if self.onset is None else RECENT_BINS[0]
        self._fresh = values is not None and self._bins.add(step, values) and len(self._bins) >= needed
        if self._fresh:
            means = self._bins.means
            reference = level_before(means) if self.onset is None else self.onset.reference
            self.drop = measure_drop(means, reference)

    def judge(self, step: int, largest_other: float, may_settle: bool) -> None:
        """Move the stage. `largest_other` is the largest drop of the run's other groups."""
        if not self._fresh or self.drop is None:
            return
        if self.onset is None:
            self._look_for_onset(step, self.drop, largest_other)
        else:
            self._follow(self.onset, self.drop, largest_other, may_settle)

    def _look_for_onset(self, step: int, drop: Drop, largest_other: float) -> None:
        counts = drop.net >= MIN_DROP and drop.size >= DRAGGED_SHARE * largest_other
        self._cusum = max(0.0, self._cusum + drop.net / drop.stderr - CUSUM_ALLOWANCE) if counts else 0.0
        if self._cusum >= CUSUM_LIMIT:
            self.stage = Stage.SHARING
            self.onset = Onset(step=step, size=drop.size, reference=level_before(self._bins.means))
            self._largest = drop.size

    def _follow(self, onset: Onset, drop: Drop, largest_other: float, may_settle: bool) -> None:
        self._largest = max(self._largest, drop.size)
        dragged = self.stage is Stage.SHARING and drop.size < WITHDRAW_SHARE * DRAGGED_SHARE * largest_other
        if drop.blown_up:
            self.stage, self.collapsed_once = Stage.COLLAPSED, True
        elif drop.size < WITHDRAW_SHARE * self._largest or dragged:
            self.stage, self.onset, self._cusum, self.collapsed_once = Stage.APART, None, 0.0, False
        elif self.stage is Stage.COLLAPSED:
            self.stage = Stage.SHARING
        elif (
            self.stage is Stage.SHARING
            and may_settle
            and settled(self._bins.steps, self._bins.means, onset, drop, largest_other)
        ):
            self.stage = Stage.SETTLED
