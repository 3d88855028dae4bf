"""A connection that is made again and again, in a daemon thread that never raises."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import grpc

from pathwatch.client.attempts import Attempts
from pathwatch.client.channel import Credentials
from pathwatch.client.connection import Connection
from pathwatch.client.jitter import between
from pathwatch.client.outages import AWAY, Outages
from pathwatch.client.route import Route

_FIRST_DELAY = 0.2
_LONGEST_DELAY = 30.0
_LONGEST_DELAY_AMONG_SEVERAL = 1.0
_FIRST_DELAY_REFUSED = 1.0
_LONGEST_DELAY_REFUSED = 60.0
_SHORT_LIFE = 60.0
_MANY_CUTS = 5
"""Connections of a short life cut in a row, of which the last is news: something may cut each of them."""
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


class Reconnecting:
    """Runs `attempt` with a fresh connection until stopped; waits longer after every failure, with jitter.

    `attempt(connection, answered)` calls `answered` when the server answers, and returns or raises when its
    connection is over. Nothing it raises gets out; the first of a series of equal failures is a warning, but
    for the end of a connection that had served: if there is nobody any more, the next attempt says so, and
    where one after the other is cut, every fifth is a warning.
    Where the server ended a connection that had served, the next is made at once; so it is where a server
    says that another one has the run. Waits are short among several servers, and while the run moves; of
    several, one that is away is worth a warning only when none of the others serves.
    """

    def __init__(
        self,
        name: str,
        route: Route,
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
        self._route = route
        self._outages = Outages(tells_absence=tells_absence)
        self._attempts = Attempts(route, credentials, attempt, self._outages)
        self._on_end = on_end
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def last_error(self) -> str | None:
        """Newest failure, kept after recovery."""
        return self._outages.last_error

    def hurry(self) -> None:
        """No more waiting: a connection that is down gets one last attempt, at once, with every server."""
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
            self._attempts.close()
            self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        failures, cuts, delay = 0, 0, 0.0
        try:
            while not self._stop.is_set():
                last = self._hurry.is_set()
                started = time.monotonic()
                failure, asked, cut, moving = self._attempts.make()
                if self._route.follows:
                    continue
                # A connection that lasted longer than the wait before it was a good one: start over.
                lasted = time.monotonic() - started
                good = lasted > max(delay, _FIRST_DELAY)
                cuts = cuts + 1 if cut and lasted < _SHORT_LIFE else 0
                if failure is not None and not self._stop.is_set():
                    often = cuts > 0 and cuts % _MANY_CUTS == 0
                    passing = self._goes_on and failure.code in AWAY
                    self._outages.failed(
                        failure, expected=(passing or (cut and good and not last)) and not often
                    )
                if self._stop.is_set() or (last and (failure is None or not self._goes_on)):
                    return
                failures = 0 if good else failures + 1
                if failure is None and good:  # servers want new connections from time to time
                    delay = 0.0
                    continue
                refused = failure is not None and failure.code in _REFUSALS
                delay = asked + _delay(failures, refused, self._route.several or moving)
                if last:
                    self._stop.wait(min(delay, _FIRST_DELAY))
                else:
                    self._hurry.wait(delay)
        finally:
            self._on_end()

    @property
    def _goes_on(self) -> bool:
        """Whether there is another server that may have the run."""
        return self._route.several and not self._route.exhausted


def _delay(failures: int, refused: bool, several: bool) -> float:
    """Seconds to wait: doubled with every failure, with jitter so that ranks do not come at once."""
    first, longest, least = _FIRST_DELAY, _LONGEST_DELAY, 0.5
    if refused:
        first, longest = _FIRST_DELAY_REFUSED, _LONGEST_DELAY_REFUSED
    elif several:  # of a run all ranks go to the same server next
        longest, least = _LONGEST_DELAY_AMONG_SEVERAL, 0.1
    return min(longest, first * 2.0 ** min(failures, 16)) * between(least, 1.0)
