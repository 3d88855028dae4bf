"""Groups that generalize while they are still being memorized: no level before the drop was ever seen.

Their reference is what memorized groups that do not generalize show. When 88 recorded groups were memorized
(docs/science.md; median of five windows), the affinity was 0.54 to 0.94 in those that never generalized,
0.49 and more in those that did so later, but 0.30 to 0.40 in models of 5 and 6 layers, and 0.12 to 0.50 in
14 of the 16 whose test accuracy was rising already.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pathwatch.server.phases.drop import Row, values_of
from pathwatch.server.phases.evidence import Reading
from pathwatch.server.phases.settle import Onset
from pathwatch.server.phases.sharing import MIN_DROP

SHARED_AFFINITY = 0.45
"""Last layer's affinity under which samples of one target share more than memorizing alone makes them."""
CONDENSED = 0.25
"""Log of how far the effective dimension must have fallen under its peak: memorizing alone raises it, and in
deep models it can make the last layer's affinity small, too."""
MEMORIZED_AFFINITY = 0.7
"""What is taken as its level before; most memorized groups show more."""


def onset_when_memorized(step: int, recent: Sequence[Reading], dimension_peak: float) -> Onset | None:
    """The onset of a group whose newest windows say that routing is shared already; None = they do not.

    `dimension_peak`: the largest log effective dimension so far.
    Only by target affinity: effective dimension and distance have no level that holds for every model.
    """
    values = [found for reading in recent if reading.by_target and (found := values_of(reading)) is not None]
    if not values or len(values) < len(recent):
        return None
    level = np.median(values, axis=0)
    if level[Row.SHARING, 0] > np.log(SHARED_AFFINITY):
        return None
    if level[Row.DIMENSION, 0] > dimension_peak - CONDENSED:
        return None
    before = np.log(MEMORIZED_AFFINITY)
    level[Row.SHARING] = before
    level[Row.DEPTH] = np.maximum(level[Row.DEPTH], before)
    # Most of the drop has been missed: confirmation, which asks how it grew, counts from the least there is.
    return Onset(step=step, size=MIN_DROP, reference=level)
