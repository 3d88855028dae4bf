"""Calls that find the server which has the run, within the time that they may take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc

from pathwatch.client.channel import Credentials
from pathwatch.client.connection import Connection
from pathwatch.client.connections import Connections, closed_error
from pathwatch.client.endpoints import Endpoints
from pathwatch.client.errors import PathwatchError, explain, is_moving, owner_of
from pathwatch.client.jitter import between
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
        self._timeout = timeout
        self._closed = threading.Event()
        self._connections = Connections(credentials)
        self._homes: dict[str, Target] = {}
        try:
            lone = Endpoints(server, "").lone
        except ValueError as error:
            raise PathwatchError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        if lone is not None:  # so that what is wrong with it, or the credentials, is said at once
            with self._connections.use(Target(lone)):
                pass

    def unary(self, run: str, method: Method, request: object) -> Any:
        """The response of a call about `run`; "" = of no run."""
        route = self._route(run)

        def attempt(at: Connection, left: float | None) -> Any:
            return method(at)(request, timeout=left)

        with self._reach(route, run, attempt, self._timeout) as (_, response):
            return response

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
        pause = 0.0
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            with self._reach(route, run, attempt, left) as (target, (call, first)):
                begun = time.monotonic()
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
            now = time.monotonic()
            pause = min(_LONGEST_WAIT, 2 * pause + _SHORTEST_WAIT) if now - begun < _LONGEST_WAIT else 0.0
            if route.follows and pause <= _SHORTEST_WAIT:  # the first time, at once
                continue
            wait = between(pause / 2, pause)
            self._closed.wait(wait if deadline is None else min(wait, max(0.0, deadline - now)))

    def wait_ready(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for one of the servers to accept a connection."""
        deadline = time.monotonic() + timeout
        route = self._route("")
        while (left := deadline - time.monotonic()) > 0:
            try:
                with self._connections.use(route.next(left)) as connection:
                    if connection.wait_ready(min(left, _READY_SECONDS) if route.several else left):
                        return
            except PathwatchError as error:
                if error.code is not grpc.StatusCode.UNAVAILABLE:
                    raise
                self._closed.wait(min(left, _SHORTEST_WAIT))
                continue
            route.lost()
        raise PathwatchError(
            grpc.StatusCode.UNAVAILABLE,
            f"no pathwatch server at {self._server} (not reachable within {timeout:g} s)",
        )

    def close(self) -> None:
        """Close all connections; calls under way are cancelled."""
        self._closed.set()
        self._connections.close()

    def _route(self, run: str) -> Route:
        connecting = min(_CONNECT_SECONDS, self._timeout / 4)
        return Route(self._server, run, start=self._homes.get(run), connect_seconds=connecting)

    @contextmanager
    def _reach(
        self,
        route: Route,
        run: str,
        attempt: Callable[[Connection, float | None], T],
        timeout: float | None,
    ) -> Iterator[tuple[Target, T]]:
        """The outcome of an attempt that is served, and where, which stays connected for as long.

        Each attempt is told the seconds that are left.
        """
        begun = time.monotonic()
        patience = begun + (_PATIENCE if timeout is None else min(timeout, _PATIENCE))
        tried: dict[str, None] = {}
        redirected = False
        while True:
            now = time.monotonic()
            left = None if timeout is None else max(0.0, begun + timeout - now)
            target = route.next(self._timeout if left is None else left)
            tried[target.address] = None
            with self._connections.use(target) as connection:
                try:
                    outcome = attempt(connection, left)
                except grpc.RpcError as error:
                    failure = explain(error, target.address, timeout).of_all(tried)
                    route.lost(owner_of(error), seconds=time.monotonic() - now)
                    redirected |= is_moving(error)
                    if failure.code is not grpc.StatusCode.UNAVAILABLE:
                        self._homes.pop(run, None)
                        raise failure from error
                except ValueError as error:  # what grpc raises on a closed channel
                    raise closed_error() from error
                else:
                    self._serves(route, run, target)
                    yield target, outcome
                    return
            if route.follows:
                continue
            wait = 0.0
            if route.exhausted:
                wait = between(_SHORTEST_WAIT, _LONGEST_WAIT)
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
