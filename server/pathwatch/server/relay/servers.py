"""A relay's connections to servers."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import grpc

from pathwatch.client.endpoints import Endpoints
from pathwatch.server.config import RelayConfig
from pathwatch.server.engine.refusal import Code, RefusedError
from pathwatch.server.relay.channels import open_channel

_MOST_IDLE = 16
"""Connections that are kept though no call uses them."""


@dataclass(slots=True, eq=False)
class Server:
    """A connection to one, which all calls there share."""

    address: str
    authority: str | None
    channel: grpc.aio.Channel
    calls: int = 0
    failed: bool = False
    """Calls to come connect anew, with what the PEM files hold by then and without gRPC's waiting."""


class Servers:
    """Used on the event loop."""

    def __init__(self, config: RelayConfig) -> None:
        """Raises ValueError where `config.upstream` is of no known form."""
        self._config = config
        self._lone = Endpoints(config.upstream, "").lone
        self._servers: OrderedDict[tuple[str, str | None], Server] = OrderedDict()

    def enter(self, address: str, authority: str | None) -> Server:
        """For a call to HOST:PORT, whose certificate is for `authority`, or its own address.

        Raises RefusedError where that is no address, or a file that is needed cannot be read.
        """
        key = (address, authority)
        server = self._servers.get(key)
        if server is None or server.failed:
            try:
                channel = open_channel(address, self._config, authority, patient=address == self._lone)
            except (ValueError, OSError) as error:
                raise RefusedError(Code.UNAVAILABLE, f"server {address}: {error}") from None
            server = self._servers[key] = Server(address, authority, channel)
        self._servers.move_to_end(key)
        server.calls += 1
        return server

    async def leave(self, server: Server) -> None:
        """A call is over."""
        server.calls -= 1
        key = (server.address, server.authority)
        is_current = self._servers.get(key) is server
        if not server.calls and (server.failed or not is_current or len(self._servers) > _MOST_IDLE):
            if is_current:
                del self._servers[key]
            await server.channel.close(None)

    async def close(self) -> None:
        """End all connections."""
        for server in self._servers.values():
            await server.channel.close(None)
