"""Running commands, small traces, and a server that says what a test wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from scripted_server import ScriptedServer, scripted_server

from pathwatch.server.app import BackgroundServer
from pathwatch.server.cli.root import pathwatch
from pathwatch.server.config import ServerConfig


@pytest.fixture
def command() -> Callable[..., Result]:
    """Runs `pathwatch` in this process; keywords become environment variables."""

    def invoke(*arguments: object, **environment: str) -> Result:
        return CliRunner().invoke(pathwatch, list(map(str, arguments)), env=environment)

    return invoke


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundServer]:
    """A real server, shared by all tests of the worker."""
    with BackgroundServer(ServerConfig(data=tmp_path_factory.mktemp("data"))) as running:
        yield running


@pytest.fixture
def trace_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small trace of two groups; keywords replace arrays."""

    def write(name: str = "small", steps: int = 6, **changes: Any) -> Path:
        random = np.random.default_rng(7)
        shape = (steps, 2, 24)
        content = {
            "steps": 25 * np.arange(steps),
            "groups": np.array(["code", "math"]),
            "losses": random.gamma(2, 1, shape).astype(np.float32) / (1 + np.arange(steps))[:, None, None],
            "weights": random.dirichlet(np.ones(4), (*shape, 2)).astype(np.float16),
            "targets": random.integers(0, 3, (2, 24)).astype(np.int32),
            "visits": np.broadcast_to(np.arange(steps)[:, None, None], shape).astype(np.int32),
            "gram_self": np.broadcast_to(np.eye(4), (steps, 2, 4, 4)).astype(np.float32),
            "gram_next": np.broadcast_to(np.eye(4), (steps, 1, 4, 4)).astype(np.float32),
            **changes,
        }
        path = tmp_path / f"{name}.npz"
        np.savez(path, **content)
        return path

    return write


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    with scripted_server() as said:
        yield said
