"""Calls that find the server which has the run, within the time that they may take."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc

from pathwatch.client.channel import Credentials, open_channel
from pathwatch.client.connection import Connection
from pathwatch.client.endpoints import Endpoints
from pathwatch.client.errors import PathwatchError, explain, owner_of
from pathwatch.client.route import Route, Target

T = TypeVar("T")
Method = Callable[[Connection], Callable[..., Any]]
"""A method of one of a connection's stubs."""

_PATIENCE = 60.0
"""How long a server that has the run, as others say, may stay away where the call has no time limit."""
_CONNECT_SECONDS = 5.0
_READY_SECONDS = 1.0
_SHORTEST_WAIT, _LONGEST_WAIT = 0.1, 1.0
_MOST_HOMES = 1000


class RoutedCalls:
    """Calls about runs, from any thread, each to where its run was served last.

    Where that server is away, or names another, the call is made there: all calls may be made again. Once
    none of the servers answers the call fails; while some of them answer that another one has the run, it is
    waited for. Everything raises PathwatchError.
    """

    def __init__(self, server: str, credentials: Credentials | None, timeout: float) -> None:
        """`server` as for `Endpoints`; a call that says nothing else may take `timeout` seconds."""
        self._server = server
        self._credentials = credentials
        self._timeout = timeout
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._connections: dict[tuple[str, str | None], Connection] = {}
        self._homes: dict[str, Target] = {}
        try:
            lone = Endpoints(server, "").lone
        except ValueError as error:
            raise PathwatchError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        if lone is not None:  # so that what is wrong with it, or the credentials, is said at once
            self._connection(Target(lone))

    def unary(self, run: str, method: Method, request: object) -> Any:
        """The response of a call about `run`; "" = of no run."""
        route = self._route(run)
        return self._reach(route, run, lambda at, left: method(at)(request, timeout=left), self._timeout)[1]

    def stream(
        self,
        run: str,
        method: Method,
        request: object,
        *,
        timeout: float | None = None,
        resumes: bool = False,
    ) -> Iterator[Any]:
        """The responses of a streaming call; with `resumes` it is made again where its server goes."""

        def attempt(at: Connection, left: float | None) -> tuple[Any, Any]:
            call = method(at)(request, timeout=left)
            try:
                return call, next(call, None)
            except BaseException:
                call.cancel()
                raise

        route = self._route(run)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            target, (call, first) = self._reach(route, run, attempt, left)
            try:
                if first is not None:
                    yield first
                    yield from call
                return
            except grpc.RpcError as error:
                failure = explain(error, target.address)
                route.lost(owner_of(error))
                if not (resumes and route.several and failure.code is grpc.StatusCode.UNAVAILABLE):
                    raise failure from error
            finally:
                call.cancel()

    def wait_ready(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for one of the servers to accept a connection."""
        deadline = time.monotonic() + timeout
        route = self._route("")
        while (left := deadline - time.monotonic()) > 0:
            try:
                connection = self._connection(route.next(left))
            except PathwatchError as error:
                if error.code is not grpc.StatusCode.UNAVAILABLE:
                    raise
                self._closed.wait(min(left, _SHORTEST_WAIT))
                continue
            if connection.wait_ready(min(left, _READY_SECONDS) if route.several else left):
                return
            route.lost()
        raise PathwatchError(
            grpc.StatusCode.UNAVAILABLE,
            f"no pathwatch server at {self._server} (not reachable within {timeout:g} s)",
        )

    def close(self) -> None:
        """Close all connections; calls under way are cancelled."""
        self._closed.set()
        with self._lock:
            for connection in self._connections.values():
                connection.close()

    def _route(self, run: str) -> Route:
        connecting = min(_CONNECT_SECONDS, self._timeout / 4)
        return Route(self._server, run, start=self._homes.get(run), connect_seconds=connecting)

    def _reach(
        self,
        route: Route,
        run: str,
        attempt: Callable[[Connection, float | None], T],
        timeout: float | None,
    ) -> tuple[Target, T]:
        """The outcome of an attempt that is served, and where; each is told the seconds that are left."""
        begun = time.monotonic()
        patience = begun + (_PATIENCE if timeout is None else min(timeout, _PATIENCE))
        tried: dict[str, None] = {}
        redirected = False
        while True:
            now = time.monotonic()
            left = None if timeout is None else max(0.0, begun + timeout - now)
            target = route.next(self._timeout if left is None else left)
            tried[target.address] = None
            try:
                outcome = attempt(self._connection(target), left)
            except grpc.RpcError as error:
                failure = explain(error, target.address, timeout).of_all(tried)
                owner = owner_of(error)
                route.lost(owner, seconds=time.monotonic() - now)
                redirected |= owner != ""
                if failure.code is not grpc.StatusCode.UNAVAILABLE:
                    self._homes.pop(run, None)
                    raise failure from error
            except ValueError as error:  # what grpc raises on a closed channel
                raise _closed() from error
            else:
                self._serves(route, run, target)
                return target, outcome
            if route.follows:
                continue
            wait = 0.0
            if route.exhausted:
                wait = random.uniform(_SHORTEST_WAIT, _LONGEST_WAIT)  # noqa: S311
                if not redirected or time.monotonic() + wait > patience:
                    raise failure
                redirected = False
            self._closed.wait(wait)

    def _serves(self, route: Route, run: str, target: Target) -> None:
        route.served()
        if not route.several:
            return
        if len(self._homes) >= _MOST_HOMES:
            self._homes.clear()
        self._homes[run] = target

    def _connection(self, target: Target) -> Connection:
        key = (target.address, target.authority)
        with self._lock:
            if self._closed.is_set():
                raise _closed()
            if (connection := self._connections.get(key)) is None:
                try:
                    channel = open_channel(
                        target.address,
                        self._credentials,
                        authority=target.authority,
                        connect_seconds=target.connect_seconds,
                    )
                except (ValueError, OSError) as error:
                    raise PathwatchError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
                connection = self._connections[key] = Connection(channel)
            return connection


def _closed() -> PathwatchError:
    return PathwatchError(grpc.StatusCode.CANCELLED, "this pathwatch client is closed")
