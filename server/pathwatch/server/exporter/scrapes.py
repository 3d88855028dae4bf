"""Answers to scrapes, made one at a time and shared between those that come together."""

from __future__ import annotations

import gzip
import threading
import time
from dataclasses import dataclass

from prometheus_client.exposition import gzip_accepted
from prometheus_client.registry import Collector

from pathwatch.server.exporter.exposition import exposition

_GZIP_LEVEL = 1
"""Ten times faster than the best, and a sixth larger."""


WAIT_SECONDS = 10.0
"""Longest wait for another's answer, which may hang with the disk: Prometheus gives up then, too."""


class BusyError(Exception):
    """Another scrape has not come to its end for too long."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """An answer."""

    body: bytes
    content_type: str
    is_gzip: bool


class Scrapes:
    """Scrapes of a collector, for any thread."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._lock = threading.Lock()
        self._asked = ("", False)
        self._begun = float("-inf")
        self._last: Scrape | None = None

    def answer(self, accept: str, accept_encoding: str) -> Scrape:
        """What stands now; the arguments are headers of the request.

        Who waits for another's answer takes the next one together with all others that wait and ask for the
        same: however many come at once, they cost little more than two. Raises BusyError.
        """
        asked = (accept, gzip_accepted(accept_encoding))
        came = time.monotonic()
        if not self._lock.acquire(timeout=WAIT_SECONDS):
            raise BusyError(f"another scrape has not come to its end for {WAIT_SECONDS:.0f} s")
        try:
            if self._last is None or self._asked != asked or self._begun < came:
                begun = time.monotonic()
                self._last = self._make(*asked)
                self._asked, self._begun = asked, begun
            return self._last
        finally:
            self._lock.release()

    def _make(self, accept: str, is_gzip: bool) -> Scrape:
        content_type, body = exposition(self._collector, accept)
        if is_gzip:
            body = gzip.compress(body, _GZIP_LEVEL, mtime=0)
        return Scrape(body, content_type, is_gzip)
