"""Every test of the store interface runs against every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from pathwatch.server.store.interface import Store
from pathwatch.server.store.sqlite import SqliteStore

ENGINES: dict[str, Callable[[Path], Store]] = {"sqlite": SqliteStore}


@pytest.fixture(params=ENGINES)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens the store; what was opened before is closed first, as a restart would."""
    opened = ExitStack()

    def open_again() -> Store:
        opened.close()
        return opened.enter_context(closing(ENGINES[request.param](tmp_path / "data")))

    with opened:
        yield open_again


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    return open_store()
