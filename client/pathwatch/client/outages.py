"""What is said of failed connections: once per outage and kind."""

from __future__ import annotations

import logging

import grpc

from pathwatch.client.errors import PathwatchError
from pathwatch.client.logs import QuietLogger

_logger = QuietLogger("pathwatch.client")

# One outage shows in both, in turn: frozen, a server still takes connections.
AWAY = frozenset({grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE})
"""Codes of a server that is not there."""


class Outages:
    """The log of one connection that is made again and again."""

    def __init__(self, *, tells_absence: bool) -> None:
        """`tells_absence`: whether a server that is away is worth a warning."""
        self._tells_absence = tells_absence
        self._warned: set[grpc.StatusCode | frozenset[grpc.StatusCode]] = set()
        self.last_error: str | None = None
        """Newest failure, kept after recovery."""

    def over(self, address: str) -> None:
        """A server serves; the next failure is news again."""
        if self._warned:
            _logger.info("pathwatch: connected to %s again", address)
            self._warned.clear()

    def failed(self, failure: PathwatchError, *, expected: bool) -> None:
        """An attempt failed; `expected`: it is no news."""
        self.last_error = str(failure)
        if expected:
            _logger.debug("pathwatch: %s; connecting again", failure)
            return
        kind = AWAY if failure.code in AWAY else failure.code
        known = kind in self._warned or (kind is AWAY and not self._tells_absence)
        level = logging.DEBUG if known else logging.WARNING
        self._warned.add(kind)
        _logger.log(level, "pathwatch: %s; training goes on, data is buffered, trying again", failure)

    def moved(self, failure: PathwatchError) -> None:
        """A server named another, which is asked next."""
        _logger.debug("pathwatch: %s", failure)
