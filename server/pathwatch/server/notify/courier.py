"""A thread that keeps one webhook up to date: slow ones hold up no other."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from pathwatch.server.config import Webhook
from pathwatch.server.engine.clock import Clock
from pathwatch.server.engine.engine import Engine
from pathwatch.server.notify.counts import DeliveryCounts
from pathwatch.server.store.interface import StoreReader

log = logging.getLogger("pathwatch.server")

FAULT_SECONDS = 60.0
"""How long after a fault of ours it is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What couriers need of the server."""

    engine: Engine
    store: StoreReader
    data: Path
    public_url: str
    counts: DeliveryCounts
    clock: Clock


class Courier(ABC):
    """Does one `step` after another in a thread of its own."""

    def __init__(self, webhook: Webhook) -> None:
        self.webhook = webhook
        """As it is configured now."""
        self.abandoned = False
        """Nothing that it does is to have any effect any more."""
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(
            target=self._run, name=f"pathwatch-webhook-{webhook.name}", daemon=True
        )

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def notify(self, run: str) -> None:
        """Something about the run may have changed. From any thread, at once."""
        self.wake()

    def wake(self) -> None:
        """Look at once what there is to do."""
        self._wake.set()

    def configure(self, webhook: Webhook) -> None:
        """The same webhook, configured otherwise from the next step on."""
        self.webhook = webhook
        self.wake()

    def close(self) -> None:
        """End after what can be done at once."""
        self._closing = True
        self.wake()

    def join(self, timeout: float) -> None:
        """Wait for the end; what still goes on then has no effect any more."""
        self._thread.join(timeout)
        self.abandon()

    def abandon(self) -> None:
        """End as soon as may be, with nothing remembered."""
        self.abandoned = True
        self.close()

    def dismiss(self) -> None:
        """Abandon it; from now on it writes no file either, so that what it remembered can be removed."""
        self.abandon()

    @abstractmethod
    def step(self) -> float | None:
        """Do one thing; the seconds until there may be another, None = not before something changes."""

    def finish(self) -> None:  # noqa: B027  # not everybody has something to do
        """The last thing done after `close`."""

    def _run(self) -> None:
        while not self.abandoned:
            self._wake.clear()
            closing = self._closing  # after: an end that is asked for in between would not be heard of again
            try:
                wait = self.step()
            except Exception:
                log.exception("webhook %r: a fault of the service", self.webhook.name)
                wait = FAULT_SECONDS
            if wait == 0:
                continue
            if closing:
                break
            self._wake.wait(wait)
        if not self.abandoned:
            self.finish()
