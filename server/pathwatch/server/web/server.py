"""The HTTP side: routes to what the house has to show, behind one door."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pathwatch.server.access.counts import AccessCounts
from pathwatch.server.access.reloading import Reloaded
from pathwatch.server.access.token_file import open_tokens
from pathwatch.server.config import AddressError, ServingConfig, server_context, split_address
from pathwatch.server.web.answers import answer_text
from pathwatch.server.web.listener import Listener
from pathwatch.server.web.readers import Readers

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


@dataclass(frozen=True, slots=True)
class Route:
    """Where an application answers."""

    path: str
    """This path; one like /static/ takes all that begin with it, too."""
    application: WSGIApplication
    guarded: bool = True
    """Whether a token is needed, where tokens are configured. Only what holds no data may go without."""

    def takes(self, path: str) -> bool:
        """Whether a request for `path` is for this route."""
        is_folder = self.path.endswith("/") and self.path != "/"
        return path == self.path or (is_folder and path.startswith(self.path))


class HttpServer:
    """Serves from a thread of its own."""

    def __init__(self, config: ServingConfig, routes: Sequence[Route], counts: AccessCounts) -> None:
        """Of the routes the first that takes a path answers. Raises AddressError where `config.http` cannot
        be had; OSError or ValueError where a file of `config.tls` or `config.http_tokens` cannot be used."""
        host, port = split_address(config.http)
        self._routes = routes
        self._healthy = True
        tokens = open_tokens(config.http_tokens, "http_tokens", counts) if config.http_tokens else None
        self._readers = Readers(tokens, counts)
        tls = None
        if config.http_tls and (files := config.tls) is not None:
            tls = Reloaded(
                "the certificate of HTTPS",
                files.paths,
                lambda: server_context(files),
                counts.reader_of("tls"),
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
                return answer_text(start_response, "200 OK", "ok\n")
            return answer_text(start_response, "503 Service Unavailable", "draining\n")
        route = next((route for route in self._routes if route.takes(path)), None)
        if (route is None or route.guarded) and (
            denied := self._readers.check(environ.get("HTTP_AUTHORIZATION", ""))
        ):
            return answer_text(start_response, denied.status, denied.why, headers=denied.headers)
        if route is None:
            paths = ", ".join(route.path for route in self._routes)
            return answer_text(start_response, "404 Not Found", f"there are {paths} and /healthz\n")
        return route.application(environ, start_response)
