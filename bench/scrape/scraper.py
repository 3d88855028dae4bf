"""Scrapes as Prometheus does them."""

from __future__ import annotations

import http.client
import threading
import time
from types import TracebackType
from typing import NamedTuple

from bench.sidecar import Sidecar

HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2",
    "Accept-Encoding": "gzip",
}


class Taken(NamedTuple):
    """What something took, in seconds."""

    wall: float
    cpu: float
    """Of the process at work, to a hundredth of a second: only sums of many say something."""


def fetch(address: str, *, compressed: bool = True) -> bytes:
    """The body of a scrape, as it comes."""
    headers = HEADERS if compressed else {"Accept": HEADERS["Accept"]}
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request("GET", "/metrics", headers=headers)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise RuntimeError(f"/metrics answered {response.status}: {body[:200]!r}")
    return body


def scrape(server: Sidecar, *, compressed: bool = True) -> Taken:
    """From connecting to the last byte; CPU time is that of the server, whatever it does meanwhile."""
    began, cpu = time.perf_counter(), server.cpu_seconds
    fetch(server.http, compressed=compressed)
    return Taken(time.perf_counter() - began, server.cpu_seconds - cpu)


class Scraper:
    """Scrapes every so often while it is entered."""

    def __init__(self, server: Sidecar, every_seconds: float) -> None:
        self._server = server
        self._every_seconds = every_seconds
        self._over = threading.Event()
        self.taken: list[Taken] = []
        """What each scrape took."""
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Scraper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due += self._every_seconds
            self.taken.append(scrape(self._server))
