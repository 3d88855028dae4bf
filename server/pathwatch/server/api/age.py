"""How long a connection may last, so that load spreads and certificates and tokens are looked at again."""

from __future__ import annotations

import random
from dataclasses import dataclass

JITTER = 0.1
"""Share by which ages differ, so that ranks that came together do not come again together."""


@dataclass(frozen=True, slots=True)
class ConnectionAge:
    """The age at which connections and long calls end; they end well, with everything acknowledged."""

    seconds: float
    """0 = they last for ever."""

    def draw(self) -> float | None:
        """Seconds until one call is to end; None = never."""
        if not self.seconds:
            return None
        return self.seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
