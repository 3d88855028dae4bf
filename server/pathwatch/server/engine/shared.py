"""What all runs of an engine use."""

from __future__ import annotations

from dataclasses import dataclass

from pathwatch.server.config import Limits
from pathwatch.server.engine.clock import Clock
from pathwatch.server.engine.kept_bytes import KeptBytes
from pathwatch.server.engine.outbox import Outbox
from pathwatch.server.engine.stats import Stats
from pathwatch.server.store.interface import Store


@dataclass(frozen=True, slots=True)
class Shared:
    """Passed to every run by the engine."""

    store: Store
    limits: Limits
    outbox: Outbox
    stats: Stats
    clock: Clock
    kept: KeptBytes
