"""A receiver of webhooks that answers as a test has written it down, badly if need be."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    path: str
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Answer so; Retry_After becomes Retry-After."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Cut the connection without a word."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True  # `close` here would wait for the file that requests are read from


def huge(handler: BaseHTTPRequestHandler) -> None:
    """An error that talks without end."""
    handler.send_response(500)
    handler.end_headers()
    try:
        for _ in range(100_000):
            handler.wfile.write(b"x" * 65536)
    except OSError:
        handler.close_connection = True


class _Server(ThreadingHTTPServer):
    allow_reuse_port = True
    daemon_threads = True
    block_on_close = False


class WebhookReceiver:
    """Answers as in `script`, one after the other, then 200. `stop` and `start` keep the port."""

    def __init__(self, *script: Answer, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.received: list[Received] = []
        self.script = list(script)
        self._lock = threading.Lock()
        self._released = threading.Event()
        # While nobody listens, the kernel refuses connections, and gives the port to nobody else.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._holder.bind(("127.0.0.1", 0))
        self._port = self._holder.getsockname()[1]
        self.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}/hook"

    def hang(self, handler: BaseHTTPRequestHandler) -> None:
        """An answer that never comes."""
        self._released.wait(60)
        handler.close_connection = True

    def documents(self) -> list[Any]:
        """The bodies so far."""
        with self._lock:
            return [received.json() for received in self.received]

    def start(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with receiver._lock:
                    receiver.received.append(Received(self.path, self.headers, body))
                    answer = receiver.script.pop(0) if receiver.script else status(200, b"ok")
                answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", self._port), Handler)
        if self._tls:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> WebhookReceiver:
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        if self._thread.is_alive():
            self.stop()
        self._holder.close()
