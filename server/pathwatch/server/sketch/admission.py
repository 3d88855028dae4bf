"""Which observations of a message a window may still want, told before they are looked at one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pathwatch.server.sketch.hashing import hash_of_one, sample_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Observations that lie below the hash limit of their window; the others change nothing, now or later."""

    observations: int
    """Of the whole message."""
    wanted_N: NDArray[np.intp]
    """Places in the message of those below the limit, ascending; fewer than there are observations."""
    hash_limit: int
    """The limit that the others were held against. A window's limit only falls."""


Admit: TypeAlias = Callable[[str, int, NDArray[np.int64]], Admission | None]
"""(group, step, sample ids) → what to look at; None = all. May be asked from any thread."""

_NOTHING = np.zeros(0, np.intp)


def admission(
    run: str, group: str, sample_ids_N: NDArray[np.int64], hash_limit: int | None
) -> Admission | None:
    """What of these samples lies below the limit; None where all do, or there is no limit."""
    if hash_limit is None:
        return None
    if len(sample_ids_N) == 1:
        if hash_of_one(run, group, int(sample_ids_N[0])) < hash_limit:
            return None
        return Admission(observations=1, wanted_N=_NOTHING, hash_limit=hash_limit)
    below_N = sample_hash(run, group, sample_ids_N) < np.uint64(hash_limit)
    if below_N.all():
        return None
    return Admission(observations=len(sample_ids_N), wanted_N=np.flatnonzero(below_N), hash_limit=hash_limit)
