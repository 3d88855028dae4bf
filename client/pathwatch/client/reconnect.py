"""A connection that is made again and again, in a daemon thread that never raises."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import grpc

from pathwatch.client.channel import PING_SECONDS, Credentials, open_channel
from pathwatch.client.connection import Connection
from pathwatch.client.errors import PathwatchError, ended_by_age, ended_by_silence, explain
from pathwatch.client.logs import QuietLogger
from pathwatch.client.retry_info import retry_delay

_logger = QuietLogger("pathwatch.client")

_FIRST_DELAY = 0.2
_LONGEST_DELAY = 30.0
_LONGEST_PING_SECONDS = 320.0
_FIRST_DELAY_REFUSED = 1.0
_LONGEST_DELAY_REFUSED = 60.0
_SHORT_LIFE = 60.0
_MANY_CUTS = 5
"""Connections of a short life cut in a row, of which the last is news: something may cut each of them."""
# One outage shows in both, in turn: frozen, a server still takes connections.
_AWAY = frozenset({grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE})
# Somebody has to do something before these go away.
_REFUSALS = frozenset(
    {
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


class _Ending(NamedTuple):
    """How an attempt ended."""

    failure: PathwatchError | None = None
    asked: float = 0.0
    """Seconds that the server asked to wait."""
    cut: bool = False
    """Whether a connection that served was closed: by age, a restart or a proxy, which nobody can tell."""


class Reconnecting:
    """Runs `attempt` with a fresh connection until stopped; waits longer after every failure, with jitter.

    `attempt(connection, answered)` calls `answered` when the server answers, and returns or raises when its
    connection is over. Nothing it raises gets out; the first of a series of equal failures is a warning, but
    for the end of a connection that had served: if there is nobody any more, the next attempt says so, and
    where one after the other is cut, every fifth is a warning.
    Where the server ended a connection that had served, the next is made at once.
    """

    def __init__(
        self,
        name: str,
        address: str,
        credentials: Credentials | None,
        attempt: Callable[[Connection, Callable[[], None]], None],
        *,
        on_end: Callable[[], None] = lambda: None,
        tells_absence: bool = True,
    ) -> None:
        """Starts at once; `on_end` is called when no further attempt will be made.

        `tells_absence`: whether a server that is away is worth a warning; not where another connection to it
        gives one.
        """
        self._tells_absence = tells_absence
        self._address = address
        self._credentials = credentials
        self._attempt = attempt
        self._on_end = on_end
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._connection: Connection | None = None
        self._ping_seconds = PING_SECONDS
        self._served = False
        self._warned: grpc.StatusCode | frozenset[grpc.StatusCode] | None = None
        self.last_error: str | None = None
        """Newest failure, kept after recovery."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def hurry(self) -> None:
        """No more waiting: a connection that is down gets one last attempt, at once."""
        self._hurry.set()

    def finish(self) -> None:
        """No attempt after the one under way."""
        self._stop.set()
        self._hurry.set()

    def stop(self, timeout: float, grace: float = 0.0) -> bool:
        """End the thread within `timeout` seconds: by itself within `grace`, else by closing its connection.

        False when it has not ended yet; it may be asked again.
        """
        deadline = time.monotonic() + timeout
        self.finish()
        self._thread.join(grace)
        if self._thread.is_alive():
            if (connection := self._connection) is not None:
                connection.close()
            self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        failures, cuts, delay = 0, 0, 0.0
        try:
            while not self._stop.is_set():
                last = self._hurry.is_set()
                started = time.monotonic()
                failure, asked, cut = self._try()
                # A connection that lasted longer than the wait before it was a good one: start over.
                lasted = time.monotonic() - started
                good = lasted > max(delay, _FIRST_DELAY)
                cuts = cuts + 1 if cut and lasted < _SHORT_LIFE else 0
                if failure is not None and not self._stop.is_set():
                    often = cuts > 0 and cuts % _MANY_CUTS == 0
                    self._report(failure, expected=cut and good and not last and not often)
                if last or self._stop.is_set():
                    return
                failures = 0 if good else failures + 1
                if failure is None and good:  # servers want new connections from time to time
                    delay = 0.0
                    continue
                refused = failure is not None and failure.code in _REFUSALS
                delay = asked + _delay(failures, refused)
                self._hurry.wait(delay)
        finally:
            self._on_end()

    def _try(self) -> _Ending:
        """One attempt."""
        try:
            self._served = False
            channel = open_channel(self._address, self._credentials, ping_seconds=self._ping_seconds)
            connection = self._connection = Connection(channel)
            try:
                self._attempt(connection, self._answered)
            finally:
                connection.close()
        except PathwatchError as error:
            return _Ending(error)
        except grpc.RpcError as error:
            silent = ended_by_silence(error)
            self._adapt(silent=silent)
            if ended_by_age(error):
                return _Ending()
            failure = explain(error, self._address)
            cut = self._served and not silent and failure.code is grpc.StatusCode.UNAVAILABLE
            return _Ending(failure, retry_delay(error), cut)
        except (ValueError, OSError) as error:
            return _Ending(PathwatchError(grpc.StatusCode.INVALID_ARGUMENT, str(error)))
        except Exception as error:  # a fault of ours must not reach training
            return _Ending(PathwatchError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"))
        return _Ending()

    def _adapt(self, *, silent: bool) -> None:
        """Choose how long a ping of the next connection may take.

        A peer that served and fell silent is frozen, or only slow: a ping waits behind data that is to be
        forwarded. If slow, connection after connection must not end in the same way with nothing delivered.
        """
        if self._served:
            longer = min(_LONGEST_PING_SECONDS, 2 * self._ping_seconds)
            self._ping_seconds = longer if silent else PING_SECONDS

    def _answered(self) -> None:
        """The next failure is news again."""
        self._served = True
        if self._warned is not None:
            _logger.info("pathwatch: connected to %s again", self._address)
            self._warned = None

    def _report(self, failure: PathwatchError, *, expected: bool) -> None:
        self.last_error = str(failure)
        if expected:
            _logger.debug("pathwatch: %s; connecting again", failure)
            return
        kind = _AWAY if failure.code in _AWAY else failure.code
        known = kind == self._warned or (kind is _AWAY and not self._tells_absence)
        level = logging.DEBUG if known else logging.WARNING
        self._warned = kind
        _logger.log(level, "pathwatch: %s; training goes on, data is buffered, trying again", failure)


def _delay(failures: int, refused: bool) -> float:
    """Seconds to wait: doubled with every failure, with jitter so that ranks do not come at once."""
    first, longest = (
        (_FIRST_DELAY_REFUSED, _LONGEST_DELAY_REFUSED) if refused else (_FIRST_DELAY, _LONGEST_DELAY)
    )
    return min(longest, first * 2.0 ** min(failures, 16)) * random.uniform(0.5, 1.0)  # noqa: S311
