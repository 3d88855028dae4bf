"""A server, relays to it, and a run there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from relaying import HandRank

from pathwatch.client import Client
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import RelayConfig, ServerConfig
from pathwatch.v1 import run_pb2


@dataclass
class Setting:
    """A server, and a relay to it."""

    server: BackgroundServer
    relay: BackgroundServer
    channel: grpc.Channel
    """To the relay."""

    @property
    def direct(self) -> str:
        return self.server.grpc_address

    @property
    def through(self) -> str:
        return self.relay.grpc_address

    def create(self, run: str = "run", **config: Any) -> None:
        """A stream run of windows of ten steps that keep four samples, but for what is said."""
        fields: dict[str, Any] = {
            "topology": run_pb2.Topology(layers=2, experts=4),
            "mode": run_pb2.OBSERVATION_MODE_STREAM,
            "window_steps": 10,
            "capacity": 4,
            "grace_seconds": 3600,
            "keep_observations": True,
        }
        with Client(self.direct) as client:
            client.create_run(run, run_pb2.RunConfig(**fields | config))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Setting]]:
    """Starts a server and a relay; keywords that begin with `relay_` are of the relay's configuration."""
    with ExitStack() as running:

        def begin(**options: Any) -> Setting:
            own = {name: options.pop(name) for name in list(options) if name.startswith("relay_")}
            config = {name.removeprefix("relay_"): value for name, value in own.items()}
            server = running.enter_context(BackgroundServer(ServerConfig(data=tmp_path / "data", **options)))
            relay = running.enter_context(
                BackgroundServer(RelayConfig(**{"upstream": server.grpc_address} | config))
            )
            channel = running.enter_context(grpc.insecure_channel(relay.grpc_address))
            return Setting(server, relay, channel)

        yield begin


@pytest.fixture
def setting(start: Callable[..., Setting]) -> Setting:
    return start()


@pytest.fixture
def rank() -> HandRank:
    return HandRank("run", 0, 1)
