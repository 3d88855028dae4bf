"""The servers behind a relay, and which of them has a run."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc

from pathwatch.client import PathwatchError
from pathwatch.client.endpoints import Endpoints
from pathwatch.client.jitter import between
from pathwatch.server.config import RelayConfig, Secret, SecretError
from pathwatch.server.engine.refusal import Code, RefusedError
from pathwatch.server.relay.avoidance import Avoidance
from pathwatch.server.relay.failing import owner_of
from pathwatch.server.relay.homes import Homes
from pathwatch.server.relay.servers import Server, Servers
from pathwatch.server.relay.tour import Tour

T = TypeVar("T")
Metadata = tuple[tuple[str, str | bytes], ...]
Begin = Callable[[grpc.aio.Channel], Awaitable[T]]

END: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs do not know it
"""What is read of a call that has ended well."""
_SHORTEST_WAIT, _LONGEST_WAIT = 0.1, 1.0


class Upstream:
    """Used on the event loop."""

    def __init__(self, config: RelayConfig) -> None:
        """Raises ValueError where `config.upstream` is of no known form."""
        self._config = config
        self._servers = Servers(config)
        self._avoidance = Avoidance()
        self._homes = Homes()
        self._draining = asyncio.Event()

    def metadata(self, caller: grpc.aio.ServicerContext[Any, Any]) -> Metadata:
        """Who is calling, for servers: the caller's own token, else the relay's. Raises RefusedError."""
        shown = tuple(
            (key, value) for key, value in caller.invocation_metadata() or () if key == "authorization"
        )
        if shown or self._config.upstream_token_file is None:
            return shown
        try:
            return (("authorization", f"Bearer {Secret(file=self._config.upstream_token_file).read()}"),)
        except SecretError as error:
            raise RefusedError(Code.UNAVAILABLE, f"token of the relay: {error}") from None

    @asynccontextmanager
    async def reach(
        self, run: str, begin: Begin[T], patience_seconds: float
    ) -> AsyncIterator[tuple[T, grpc.aio.Channel]]:
        """What `begin` comes to at the server that has the run, and a connection to it for as long.

        `begin` is called again where a server is away, or names another; for `patience_seconds` it is, while
        none of them serves the run and one says that another has it. Raises AioRpcError as the last call did,
        RefusedError where no server is known.
        """
        server, begun = await self._begin(run, begin, time.monotonic() + patience_seconds)
        try:
            yield begun, server.channel
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                self._heed(run, server, error)
            raise
        finally:
            await self._servers.leave(server)

    async def pause(self) -> None:
        """Before the same is tried again; not once the relay drains."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(between(_SHORTEST_WAIT, _LONGEST_WAIT)):
                await self._draining.wait()

    def drain(self) -> None:
        """Let nothing be tried again: the relay goes."""
        self._draining.set()

    async def close(self) -> None:
        """End all connections."""
        await self._servers.close()

    async def _begin(self, run: str, begin: Begin[T], until: float) -> tuple[Server, T]:
        endpoints = Endpoints(self._config.upstream, run)
        while True:
            named = await _candidates(endpoints)
            home = self._homes.get(run)
            tour = Tour(named if home is None else (home, *named), self._avoidance)
            failures: list[Exception] = []
            for address in tour:
                authority = endpoints.authority if address in named else None
                try:
                    return await self._attempt(run, address, authority, begin)
                except RefusedError as refusal:
                    failures.append(refusal)
                    tour.away(address)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    failures.append(error)
                    if (owner := owner_of(error)) is None:
                        tour.away(address)
                    else:
                        tour.point(owner)
            if not tour.redirected or self._draining.is_set() or time.monotonic() + _LONGEST_WAIT > until:
                raise failures[-1]
            await self.pause()

    async def _attempt(
        self, run: str, address: str, authority: str | None, begin: Begin[T]
    ) -> tuple[Server, T]:
        server = self._servers.enter(address, authority)
        asked = time.monotonic()
        try:
            begun = await begin(server.channel)
        except BaseException as error:
            self._heed(run, server, error, time.monotonic() - asked)
            await self._servers.leave(server)
            raise
        self._homes.put(run, address)
        return server, begun

    def _heed(self, run: str, server: Server, error: BaseException, seconds: float = 0.0) -> None:
        """A call has failed, after so many seconds if it had not begun."""
        if isinstance(error, grpc.aio.AioRpcError):
            code, owner = error.code(), owner_of(error)
        elif isinstance(error, asyncio.CancelledError):
            # At the caller's deadline gRPC may end the call to us before it ends ours.
            code, owner = grpc.StatusCode.DEADLINE_EXCEEDED, None
        else:
            return
        if owner:
            self._homes.put(run, owner)
            return
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self._homes.forget(run)
            self._avoidance.slow(server.address, seconds)
        elif code is grpc.StatusCode.UNAVAILABLE:
            self._homes.forget(run)
            if owner is None:
                server.failed = True
                self._avoidance.unreached(server.address, seconds)


async def _candidates(endpoints: Endpoints) -> Sequence[str]:
    try:
        # Names and files are looked up, which may take long.
        return await asyncio.to_thread(endpoints.candidates)
    except PathwatchError as error:
        raise RefusedError(Code.UNAVAILABLE, str(error)) from None
