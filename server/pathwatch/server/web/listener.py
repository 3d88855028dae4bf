"""A small HTTP server that slow, idle and too many connections cannot hold up."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

from pathwatch.server.access.reloading import Reloaded

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

log = logging.getLogger("pathwatch.server")

CONNECTIONS = 32
"""Open at the same time, each with a thread; for one more, the oldest is cut."""
IDLE_SECONDS = 10.0
"""Longest wait for the next bytes of a request, or for room for those of an answer."""
TOTAL_SECONDS = 30.0
"""Longest life of a connection: one request and its answer."""
ROOM_SECONDS = 1.0
"""Longest wait for the thread of a connection that was cut."""
_LINE_BYTES = 65536
"""Longest first line of a request."""


class Listener(ThreadingMixIn, WSGIServer):
    """Serves one WSGI application."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self, host: str, port: int, application: WSGIApplication, tls: Reloaded[ssl.SSLContext] | None
    ) -> None:
        """Raises OSError where the address cannot be had."""
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._tls = tls
        self._room = threading.Semaphore(CONNECTIONS)
        self._lock = threading.Lock()
        self._open: dict[socket.socket, float] = {}
        """Connection → when it was made (monotonic), oldest first."""
        super().__init__((host, port), QuietHandler)
        self.set_app(application)

    def server_bind(self) -> None:
        """As the base class, without its look-up of the host's full name, which can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection; where it is TLS, the handshake is left to its own thread."""
        connection, peer = super().get_request()
        connection.settimeout(IDLE_SECONDS)
        if self._tls is not None:
            connection = self._tls.current().wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, peer

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the connection a thread, if need be that of the oldest."""
        if not self._room.acquire(blocking=False):
            self._cut(1)
            if not self._room.acquire(timeout=ROOM_SECONDS):
                self.shutdown_request(request)
                return
        with self._lock:
            self._open[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._give_back(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One request, its answer, and room again."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._give_back(request)

    def service_actions(self) -> None:
        """Called between connections, and every half second without any."""
        too_old = time.monotonic() - TOTAL_SECONDS
        with self._lock:
            count = sum(made < too_old for made in self._open.values())
        self._cut(count)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are everyday, and no reason for a traceback on stderr."""
        log.debug("HTTP connection from %s failed", client_address, exc_info=True)

    def _give_back(self, request: Any) -> None:
        with self._lock:
            del self._open[request]
        self._room.release()

    def _cut(self, count: int) -> None:
        """End the oldest connections; their threads notice."""
        with self._lock:
            for connection in list(self._open)[:count]:
                try:
                    # Of the bare socket: SSLSocket's own would pull TLS from under the thread that reads.
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
                except OSError:
                    log.debug("an HTTP connection that was to be cut had ended")


class _Answer(ServerHandler):
    """Has the application called, and its answer sent."""

    result: Any
    """What the application gave; None = nothing yet."""

    def log_exception(self, exc_info: Any) -> None:
        """To the log, not to stderr as the base class; who takes too long to read is a broken connection."""
        if self.result is not None and isinstance(exc_info[1], OSError):
            log.debug("an HTTP answer could not be sent", exc_info=exc_info)
        else:
            log.error("a fault of the service", exc_info=exc_info)


class QuietHandler(WSGIRequestHandler):
    """One request."""

    server: Listener

    def handle(self) -> None:
        """As the base class, but with a handler of ours."""
        self.raw_requestline = self.rfile.readline(_LINE_BYTES + 1)
        if len(self.raw_requestline) > _LINE_BYTES:
            self.requestline = self.request_version = self.command = ""
            self.send_error(414)
        elif self.parse_request():
            reads: Any = self.rfile
            writes: Any = self.wfile
            answer: Any = _Answer(reads, writes, self.get_stderr(), self.get_environ(), multithread=False)
            answer.request_handler = self
            answer.run(self.server.get_app())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Requests are not logged: a scrape every few seconds is no news."""
