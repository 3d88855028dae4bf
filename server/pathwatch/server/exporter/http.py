"""The HTTP side: /metrics for Prometheus, /healthz for probes, a list of runs for people."""

from __future__ import annotations

import html
import socket
import threading
from collections.abc import Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, make_wsgi_app

from pathwatch.server.config import AddressError, split_address
from pathwatch.server.engine.engine import Engine
from pathwatch.server.exporter.collector import StateCollector
from pathwatch.v1 import run_pb2, signal_pb2

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class HttpServer:
    """Serves from a thread of its own."""

    def __init__(self, address: str, engine: Engine) -> None:
        """Raises AddressError where the address cannot be had."""
        host, port = split_address(address)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(StateCollector(engine))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._engine = engine
        self._metrics: WSGIApplication = make_wsgi_app(registry)
        self._healthy = True
        server_class = _IPv6Server if ":" in host else _Server
        try:
            self._server = server_class((host, port), _QuietHandler)
        except OSError as error:
            raise AddressError(f"cannot listen on {address}: {error.strerror}") from error
        self._server.set_app(self._respond)
        port = self._server.server_address[1]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        """HOST:PORT that is listened on."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="pathwatch-http"
        )

    def start(self) -> None:
        """Take requests."""
        self._thread.start()

    def drain(self) -> None:
        """Say unhealthy from now on."""
        self._healthy = False

    def close(self) -> None:
        """Take no more requests."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def _respond(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        match environ.get("PATH_INFO", "/"):
            case "/metrics":
                return self._metrics(environ, start_response)
            case "/healthz":
                if self._healthy:
                    return _text(start_response, "200 OK", "ok\n")
                return _text(start_response, "503 Service Unavailable", "draining\n")
            case "/":
                return _text(start_response, "200 OK", _page(self._engine), "text/html")
        return _text(start_response, "404 Not Found", "there are /, /metrics and /healthz\n")


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


def _text(start_response: StartResponse, status: str, body: str, kind: str = "text/plain") -> list[bytes]:
    data = body.encode()
    start_response(status, [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(data)))])
    return [data]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        # WSGIServer would look up the host's full name, which can take seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()


class _IPv6Server(_Server):
    address_family = socket.AF_INET6


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Requests are not logged: a scrape every few seconds is no news."""
