"""What tests of the exporter share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from recorded_run import RecordedRun, recorded

from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig


@pytest.fixture(scope="session")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundServer]:
    """A server that a recorded run is played to, with layers; its stream stays open, and the run is never
    taken for silent, however long other tests take."""
    with (
        BackgroundServer(ServerConfig(data=tmp_path_factory.mktemp("replayed"))) as server,
        RecordedRun(
            server.grpc_address, "pair", recorded("pair_s1"), per_layer=True, grace_seconds=86400
        ) as run,
    ):
        run.play(8)
        yield server
