"""The HTTP side: /metrics for Prometheus, /healthz for probes, a list of runs for people."""

from __future__ import annotations

import html
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, make_wsgi_app

from pathwatch.server.access.counts import AccessCounts
from pathwatch.server.access.reloading import Reloaded
from pathwatch.server.access.token_file import open_tokens
from pathwatch.server.config import AddressError, ServerConfig, server_context, split_address
from pathwatch.server.engine.engine import Engine
from pathwatch.server.exporter.access_collector import AccessCollector
from pathwatch.server.exporter.collector import StateCollector
from pathwatch.server.exporter.listener import Listener
from pathwatch.server.exporter.readers import Readers
from pathwatch.v1 import run_pb2, signal_pb2

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class HttpServer:
    """Serves from a thread of its own."""

    def __init__(self, config: ServerConfig, engine: Engine, counts: AccessCounts) -> None:
        """Raises AddressError where `config.http` cannot be had; OSError or ValueError where a file of
        `config.tls` or `config.http_tokens` cannot be used."""
        host, port = split_address(config.http)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(StateCollector(engine))
        registry.register(AccessCollector(counts))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._engine = engine
        self._metrics: WSGIApplication = make_wsgi_app(registry)
        self._healthy = True
        tokens = open_tokens(config.http_tokens, "http_tokens", counts) if config.http_tokens else None
        self._readers = Readers(tokens, counts)
        tls = None
        if config.http_tls and (files := config.tls) is not None:
            tls = Reloaded(
                "the certificate of HTTPS",
                files.paths,
                lambda: server_context(files),
                lambda: counts.fail_reload("tls"),
            )
        try:
            self._server = Listener(host, port, self._respond, tls)
        except OSError as error:
            raise AddressError(f"cannot listen on {config.http}: {error.strerror}") from error
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
        path = environ.get("PATH_INFO", "/")
        if path == "/healthz":
            if self._healthy:
                return _text(start_response, "200 OK", "ok\n")
            return _text(start_response, "503 Service Unavailable", "draining\n")
        if denied := self._readers.check(environ.get("HTTP_AUTHORIZATION", "")):
            return _text(start_response, denied.status, denied.why, headers=denied.headers)
        match path:
            case "/metrics":
                return self._metrics(environ, start_response)
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


def _text(
    start_response: StartResponse,
    status: str,
    body: str,
    kind: str = "text/plain",
    headers: Iterable[tuple[str, str]] = (),
) -> list[bytes]:
    data = body.encode()
    own = [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(data)))]
    start_response(status, [*own, *headers])
    return [data]
