"""The two clocks of the engine, brought in so that tests can hold them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """`wall` for people and for what outlives a restart, `steady` for waiting; both in seconds."""

    wall: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
