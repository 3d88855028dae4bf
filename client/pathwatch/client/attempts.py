"""One attempt after the other to be served: where to connect, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import grpc

from pathwatch.client.channel import PING_SECONDS, Credentials, open_channel
from pathwatch.client.connection import Connection
from pathwatch.client.errors import (
    PathwatchError,
    ended_by_age,
    ended_by_silence,
    explain,
    is_moving,
    owner_of,
)
from pathwatch.client.outages import Outages
from pathwatch.client.retry_info import retry_delay
from pathwatch.client.route import Route

_LONGEST_PING_SECONDS = 320.0


class Ending(NamedTuple):
    """How an attempt ended."""

    failure: PathwatchError | None = None
    asked: float = 0.0
    """Seconds that the server asked to wait."""
    cut: bool = False
    """Whether a connection that served was closed: by age, a restart or a proxy, which nobody can tell."""
    moving: bool = False
    """Whether the server said that the run is another's, or soon will be."""


class Attempts:
    """Makes attempts, from one thread; `close` may come from another."""

    def __init__(
        self,
        route: Route,
        credentials: Credentials | None,
        attempt: Callable[[Connection, Callable[[], None]], None],
        outages: Outages,
    ) -> None:
        """`attempt` as for `Reconnecting`; `outages` hears when a server answers or names another."""
        self._route = route
        self._credentials = credentials
        self._attempt = attempt
        self._outages = outages
        self._connection: Connection | None = None
        self._closed = False
        self._ping_seconds = PING_SECONDS
        self._served = False

    def close(self) -> None:
        """End the attempt that is being made, though it may have no connection yet; there are no more."""
        self._closed = True
        if (connection := self._connection) is not None:
            connection.close()

    def make(self) -> Ending:
        """Connect to the server whose turn it is, and work until that is over. Never raises an Exception."""
        started = time.monotonic()
        self._served = False
        try:
            target = self._route.next()
            channel = open_channel(
                target.address,
                self._credentials,
                authority=target.authority,
                ping_seconds=self._ping_seconds,
                connect_seconds=target.connect_seconds,
            )
            connection = self._connection = Connection(channel)
            try:
                if not self._closed:
                    self._attempt(connection, lambda: self._answered(target.address))
            finally:
                connection.close()
        except grpc.RpcError as error:
            return self._failed(error, target.address, time.monotonic() - started)
        except PathwatchError as error:
            failure = error
        except (ValueError, OSError) as error:
            failure = PathwatchError(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Exception as error:  # a fault of ours must not reach training
            failure = PathwatchError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
        else:
            self._route.lost()
            return Ending()
        self._route.lost(seconds=time.monotonic() - started)
        return Ending(failure)

    def _failed(self, error: grpc.RpcError, address: str, seconds: float) -> Ending:
        """How an attempt ended whose call failed."""
        silent = ended_by_silence(error)
        self._adapt(silent=silent)
        if ended_by_age(error):
            self._route.lost()
            return Ending()
        failure = explain(error, address)
        if not self._route.refused(failure.code):
            self._route.lost(owner_of(error), silent=silent and self._served, seconds=seconds)
        if self._route.follows:
            self._outages.moved(failure)
        cut = self._served and not silent and failure.code is grpc.StatusCode.UNAVAILABLE
        return Ending(failure, retry_delay(error), cut, is_moving(error))

    def _adapt(self, *, silent: bool) -> None:
        """Choose how long a ping of the next connection may take.

        A peer that served and fell silent is frozen, or only slow: a ping waits behind data that is to be
        forwarded. If slow, connection after connection must not end in the same way with nothing delivered.
        """
        if self._served:
            longer = min(_LONGEST_PING_SECONDS, 2 * self._ping_seconds)
            self._ping_seconds = longer if silent else PING_SECONDS

    def _answered(self, address: str) -> None:
        """The next failure is news again."""
        if not self._served:
            self._served = True
            self._route.served()
            self._outages.over(address)
