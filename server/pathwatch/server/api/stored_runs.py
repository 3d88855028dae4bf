"""Runs that other servers have, as they are stored."""

from __future__ import annotations

import logging
from collections.abc import Container

from pathwatch.server.engine.view import run_message
from pathwatch.server.store.interface import DamagedError, StoreError, StoreReader
from pathwatch.v1 import run_pb2

log = logging.getLogger("pathwatch.server")


class StoredRuns:
    """For any thread."""

    def __init__(self, store: StoreReader) -> None:
        self._store = store
        self._damaged: frozenset[str] = frozenset()
        """Runs that could not be read when they were last listed."""

    def besides(self, own: Container[str]) -> list[run_pb2.Run]:
        """All that are stored but `own`, by name; those that are damaged are left out, and said once.

        Reads each from the store. Raises StoreError.
        """
        found, damaged = [], set()
        for name in self._store.names():
            if name in own:
                continue
            try:
                if row := self._store.run(name):
                    found.append(run_message(row, run_pb2.RunConfig.FromString(row.config)))
            except Exception as error:  # decoders raise anything at damaged bytes
                if isinstance(error, StoreError) and not isinstance(error, DamagedError):
                    raise
                damaged.add(name)
                if name not in self._damaged:
                    log.error("run %r is left out of lists: %s", name, error, extra={"run": name})
        self._damaged = frozenset(damaged)
        return found
