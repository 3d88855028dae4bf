"""Whether a soak was survived: memory below its bound, and nothing that grows and grows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import theilslopes

from bench.soak.sampling import Sample

STEADY = ("series", "files", "threads")
GROWTH = 0.05
"""Part of its level that something steady may grow by over the second half."""
AT_LEAST = 3.0
"""Growth that is let pass whatever the level: a connection more or less."""
WAL_BYTES = 64 << 20
"""Size that the write-ahead log stays below: SQLite copies it into the file as it goes, unless a reader is
in the way."""


def growth(samples: Sequence[Sample], name: str) -> tuple[float, float]:
    """Growth over the second half by its median slope (Theil-Sen), and the median level there."""
    second = samples[len(samples) // 2 :]
    seconds = np.array([one.seconds for one in second])
    values = np.array([float(getattr(one, name)) for one in second])
    slope = theilslopes(values, seconds).slope
    return float(slope * (seconds[-1] - seconds[0])), float(np.median(values))


def problems(samples: Sequence[Sample], rss_bound: int) -> list[str]:
    """What is wrong, each one line; empty = survived."""
    found = []
    highest = max(one.rss_bytes for one in samples)
    if highest > rss_bound:
        found.append(f"resident memory reached {highest >> 20} MiB; the bound is {rss_bound >> 20} MiB")
    wal = max(one.wal_bytes for one in samples)
    if wal > WAL_BYTES:
        found.append(f"the write-ahead log reached {wal >> 20} MiB; {WAL_BYTES >> 20} MiB is the bound")
    for name in STEADY:
        grown, level = growth(samples, name)
        if grown > max(AT_LEAST, GROWTH * level):
            found.append(f"{name} grew by {grown:.1f} over the second half, from about {level:.0f}")
    return found
