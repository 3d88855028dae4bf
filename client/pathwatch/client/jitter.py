"""Waits of random length, so that many clients do not come at once."""

from __future__ import annotations

import random

# Not the module's own generator: what a training job draws from that must not depend on us.
_generator = random.SystemRandom()


def between(shortest: float, longest: float) -> float:
    """Seconds, anywhere between."""
    return _generator.uniform(shortest, longest)
