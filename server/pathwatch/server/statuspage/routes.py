"""What people see in a browser."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pathwatch.server.engine.engine import Engine
from pathwatch.server.store.interface import StoreReader
from pathwatch.server.web.answers import answer
from pathwatch.server.web.server import Route
from pathwatch.v1 import run_pb2, signal_pb2

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


def page_routes(engine: Engine, store: StoreReader) -> list[Route]:
    """The status page."""

    def page(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return answer(start_response, "200 OK", _page(engine).encode(), "text/html; charset=utf-8")

    return [Route("/", page)]


def _page(engine: Engine) -> str:
    now = engine.now()
    rows = []
    for name, view in sorted(engine.views.items()):
        signal = view.signal(now)
        cells = (
            name,
            run_pb2.RunState.Name(view.run.state).removeprefix("RUN_STATE_").lower(),
            str(view.run.step),
            signal_pb2.Action.Name(signal.action).removeprefix("ACTION_"),
            signal.reason,
        )
        rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>pathwatch</title>"
        "<style>body{font:16px system-ui;margin:2rem}"
        "td,th{padding:.2rem 1rem .2rem 0;text-align:left}</style>"
        "<h1>pathwatch</h1><table><tr><th>run<th>state<th>step<th>action<th>reason</tr>"
        f"{''.join(rows)}</table><p><a href='/metrics'>metrics</a></p></html>\n"
    )
