"""Keeps leases from running out, in a thread of its own: the writer may be held up by the store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.leases import Held, Leases

log = logging.getLogger("pathwatch.server")


class Renewal:
    """Renews every third of a lease, so that two renewals may fail."""

    def __init__(self, leases: Leases, renewed: Callable[[Mapping[str, Held]], None]) -> None:
        """`renewed` is called in the thread after each renewal, with the runs that are lost."""
        self._leases = leases
        self._renewed = renewed
        self._failing = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._renew_until_stopped, name="pathwatch-leases", daemon=True
        )

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a renewal under way is waited for."""
        self._stopping.set()
        self._thread.join()

    def _renew_until_stopped(self) -> None:
        while not self._stopping.wait(self._leases.seconds / 3):
            try:
                self._renew()
            except Exception:
                log.exception("a fault of the service; leases are renewed again")

    def _renew(self) -> None:
        try:
            lost = self._leases.renew()
        except StoreError as error:
            if not self._failing:
                log.error("leases cannot be renewed, and are tried again: %s", error)
            self._failing = True
            return
        if self._failing:
            log.warning("leases are renewed again")
        self._failing = False
        self._renewed(lost)
