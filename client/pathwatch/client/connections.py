"""Connections that are kept between calls, as many as are worth it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from pathwatch.client.channel import Credentials, open_channel
from pathwatch.client.connection import Connection
from pathwatch.client.errors import PathwatchError
from pathwatch.client.route import Target

_MOST = 32


class Connections:
    """One for each server that calls go to, from any thread.

    Servers come and go, each at an address of its own: beyond 32 those that were not used for longest are
    closed. One that is used never is.
    """

    def __init__(self, credentials: Credentials | None) -> None:
        self._credentials = credentials
        self._lock = threading.Lock()
        self._closed = False
        self._open: OrderedDict[tuple[str, str | None], _Shared] = OrderedDict()

    @contextmanager
    def use(self, target: Target) -> Iterator[Connection]:
        """The connection to a server. Raises PathwatchError where there can be none."""
        shared = self._enter(target)
        try:
            yield shared.connection
        finally:
            self._leave(shared)

    def close(self) -> None:
        """Close all, also those that are used."""
        with self._lock:
            self._closed = True
            closing = list(self._open.values())
        for shared in closing:
            shared.connection.close()

    def _enter(self, target: Target) -> _Shared:
        key = (target.address, target.authority)
        with self._lock:
            if self._closed:
                raise closed_error()
            if (shared := self._open.get(key)) is None:
                try:
                    channel = open_channel(
                        target.address,
                        self._credentials,
                        authority=target.authority,
                        connect_seconds=target.connect_seconds,
                    )
                except (ValueError, OSError) as error:
                    raise PathwatchError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
                shared = self._open[key] = _Shared(Connection(channel))
            self._open.move_to_end(key)
            shared.users += 1
            return shared

    def _leave(self, shared: _Shared) -> None:
        with self._lock:
            shared.users -= 1
            idle = [key for key, other in self._open.items() if not other.users]
            closing = [self._open.pop(key) for key in idle[: max(0, len(self._open) - _MOST)]]
        for other in closing:
            other.connection.close()


class _Shared:
    """A connection, and how many use it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.users = 0


def closed_error() -> PathwatchError:
    """What a call comes to once the client is closed."""
    return PathwatchError(grpc.StatusCode.CANCELLED, "this pathwatch client is closed")
