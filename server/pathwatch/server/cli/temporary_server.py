"""A real server of a command's own, gone when the command ends."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pathwatch.server.cli.connection import Connection


@contextmanager
def temporary_server() -> Iterator[Connection]:
    """Runs on a free loopback port and keeps its data in a temporary folder."""
    from pathwatch.server.app import BackgroundServer
    from pathwatch.server.config import ServerConfig

    with tempfile.TemporaryDirectory(prefix="pathwatch-") as folder:
        config = ServerConfig(data=Path(folder))
        with BackgroundServer(config) as server:
            yield Connection(address=server.grpc_address)
