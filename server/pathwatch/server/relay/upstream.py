"""The servers behind a relay, and which of them has a run."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from pathwatch.client import PathwatchError
from pathwatch.client.endpoints import Endpoints
from pathwatch.server.config import RelayConfig, Secret, SecretError
from pathwatch.server.engine.refusal import Code, RefusedError
from pathwatch.server.relay.channels import open_channel

T = TypeVar("T")
Metadata = tuple[tuple[str, str | bytes], ...]

OWNER = "pathwatch-owner"
"""Key in trailing metadata: HOST:PORT of the server that has the run."""
END: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs do not know it
"""What is read of a call that has ended well."""
_MOST_HOPS = 4
_MOST_RUNS = 4096
"""Of which is remembered where they were served."""
_MOST_IDLE = 16
"""Connections that are kept though no call uses them."""


@dataclass(slots=True, eq=False)
class _Server:
    address: str
    channel: grpc.aio.Channel
    calls: int = 0
    failed: bool = False
    """Calls to come connect anew, with what the PEM files hold by then and without gRPC's waiting."""


class Upstream:
    """Used on the event loop. All calls to a server share one connection."""

    def __init__(self, config: RelayConfig) -> None:
        """Raises ValueError where `config.upstream` is of no known form."""
        Endpoints(config.upstream, "")
        self._config = config
        self._servers: OrderedDict[str, _Server] = OrderedDict()
        self._served: OrderedDict[str, str] = OrderedDict()

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
        self, run: str, begin: Callable[[grpc.aio.Channel], Awaitable[T]]
    ) -> AsyncIterator[tuple[T, grpc.aio.Channel]]:
        """What `begin` comes to at the server that has the run, and a connection to it for as long.

        `begin` is called again where a server is away, or names another. Raises AioRpcError as the last call
        did, RefusedError where no server is known.
        """
        server, begun = await self._begin(run, begin)
        try:
            yield begun, server.channel
        except grpc.aio.AioRpcError as error:
            self._note(run, server, error)
            raise
        finally:
            await self._leave(server)

    async def close(self) -> None:
        """End all connections."""
        for server in self._servers.values():
            await server.channel.close(None)

    async def _begin(self, run: str, begin: Callable[[grpc.aio.Channel], Awaitable[T]]) -> tuple[_Server, T]:
        endpoints = Endpoints(self._config.upstream, run)
        try:
            # Names and files are looked up, which may take long.
            named = await asyncio.to_thread(endpoints.candidates)
        except PathwatchError as error:
            raise RefusedError(Code.UNAVAILABLE, str(error)) from None
        last = self._served.get(run)
        todo = [last, *(address for address in named if address != last)] if last else list(named)
        hops = 0
        while True:
            address = todo.pop(0)
            try:
                server = self._enter(address, endpoints.authority if address in named else None)
            except RefusedError:
                if not todo:
                    raise
                continue
            try:
                begun = await begin(server.channel)
            except BaseException as error:
                owner = self._note(run, server, error)
                await self._leave(server)
                if not isinstance(error, grpc.aio.AioRpcError):
                    raise
                if owner and hops < _MOST_HOPS:
                    hops += 1
                    todo.insert(0, owner)
                elif error.code() is not grpc.StatusCode.UNAVAILABLE or not todo:
                    raise
                continue
            self._served[run] = address
            self._served.move_to_end(run)
            if len(self._served) > _MOST_RUNS:
                self._served.popitem(last=False)
            return server, begun

    def _enter(self, address: str, authority: str | None) -> _Server:
        server = self._servers.get(address)
        if server is None or server.failed:
            try:
                channel = open_channel(address, self._config, authority)
            except (ValueError, OSError) as error:
                raise RefusedError(Code.UNAVAILABLE, f"server {address}: {error}") from None
            server = self._servers[address] = _Server(address, channel)
        self._servers.move_to_end(address)
        server.calls += 1
        return server

    async def _leave(self, server: _Server) -> None:
        server.calls -= 1
        is_current = self._servers.get(server.address) is server
        if not server.calls and (server.failed or not is_current or len(self._servers) > _MOST_IDLE):
            if is_current:
                del self._servers[server.address]
            await server.channel.close(None)

    def _note(self, run: str, server: _Server, error: BaseException) -> str | None:
        """A call has failed; the server that has the run, where it says so."""
        if not isinstance(error, grpc.aio.AioRpcError) or error.code() is not grpc.StatusCode.UNAVAILABLE:
            return None
        said: Any = error.trailing_metadata() or ()
        owner = next((str(value) for key, value in said if key == OWNER and value), None)
        if owner is not None:
            self._served[run] = owner
        else:
            self._served.pop(run, None)
            server.failed = True
        return owner
