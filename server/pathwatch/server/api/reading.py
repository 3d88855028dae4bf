"""Calls that read the store, which may be away for a while."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc

from pathwatch.server.api.status import abort
from pathwatch.server.engine.refusal import Code, RefusedError
from pathwatch.server.store.interface import DamagedError, StoreError

log = logging.getLogger("pathwatch.server")


class Reading:
    """What calls read of runs: where that cannot be had just now, the caller may try again."""

    def __init__(self) -> None:
        self._unread: set[str] = set()
        """Runs that could not be read the last time; it is said once, as callers try again and again."""

    @contextlib.asynccontextmanager
    async def of(self, run: str, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
        """Around what a call reads of a run that there is."""
        try:
            yield
        except DamagedError:
            raise  # to try again is no use
        except StoreError as error:
            if run not in self._unread:
                self._unread.add(run)
                log.warning("what is stored of run %r cannot be read: %s", run, error, extra={"run": run})
            away = f"what is stored of run {run!r} cannot be read just now; try again"
            await abort(context, RefusedError(Code.UNAVAILABLE, away))
        self._unread.discard(run)
