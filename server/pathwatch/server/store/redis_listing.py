"""The names of all runs, in a set that may be on another server than they are."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from pathwatch.server.store.interface import StoreError
from pathwatch.server.store.redis_connection import RedisConnection
from pathwatch.server.store.redis_keys import RUNS

log = logging.getLogger("pathwatch.server")

_AGAIN_SECONDS = 5.0
"""How often a run is put into the set again: a server that holds it may lose its newest, too."""


class RunListing:
    """Used by one thread."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._listed: dict[str, float] = {}

    def put(self, runs: Iterable[str]) -> None:
        """A run is listed before there is anything of it, so that nothing is ever there unlisted.

        Raises StoreError.
        """
        now = time.monotonic()
        due = [run for run in runs if now - self._listed.get(run, -_AGAIN_SECONDS) >= _AGAIN_SECONDS]
        if due:
            self._connection.change("SADD", RUNS, *due)
            self._listed |= dict.fromkeys(due, now)

    def put_again(self, runs: Iterable[str]) -> None:
        """The same, where Redis has lost something: nothing may be listed any more. Raises StoreError."""
        self._listed.clear()
        self.put(runs)

    def remove(self, run: str) -> None:
        """There is nothing of the run any more."""
        self.forget(run)
        try:
            self._connection.change("SREM", RUNS, run)
        except StoreError as error:  # a name without a run is passed over
            log.info("%s", error)

    def forget(self, run: str) -> None:
        """Others list the run from here on."""
        self._listed.pop(run, None)
