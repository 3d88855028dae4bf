"""What people see in a browser, and the same as JSON."""

from __future__ import annotations

from pathwatch.server.engine.engine import Engine
from pathwatch.server.statuspage.api import Api
from pathwatch.server.statuspage.files import Files
from pathwatch.server.store.interface import StoreReader
from pathwatch.server.web.server import Route


def page_routes(engine: Engine, store: StoreReader) -> list[Route]:
    """The status page, which holds no data and so opens without a token, and the API that it reads."""
    files = Files()
    return [
        Route("/", files, guarded=False),
        Route("/static/", files, guarded=False),
        Route("/api/", Api(engine, store)),
    ]
