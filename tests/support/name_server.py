"""A DNS server on a loopback port that knows IPv4 addresses of a few names, which may change."""

from __future__ import annotations

import socket
import threading
from types import TracebackType

_HEADER = 12
_NO_SUCH_NAME = 3
_A = 1


class NameServer:
    """A context manager; other names, and other questions than for IPv4 addresses, have no answer."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}
        """Name → IPv4 address."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._socket.getsockname())
        self._thread = threading.Thread(target=self._serve, name="name-server")

    def __enter__(self) -> NameServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ender:
            ender.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, asker = self._socket.recvfrom(512)
            if not query:
                return
            self._socket.sendto(self._answer(query), asker)

    def _answer(self, query: bytes) -> bytes:
        labels, at = [], _HEADER
        while length := query[at]:
            labels.append(query[at + 1 : at + 1 + length].decode())
            at += 1 + length
        question = query[_HEADER : at + 5]
        kind = int.from_bytes(query[at + 1 : at + 3], "big")
        known = self.addresses.get(".".join(labels))
        answer = b""
        if known is not None and kind == _A:
            # The name is that of the question, at offset 12; class IN, to be kept for 0 s, 4 bytes.
            answer = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04" + socket.inet_aton(known)
        flags = b"\x81" + bytes([0x80 if known is not None else 0x80 | _NO_SUCH_NAME])
        counts = b"\x00\x01" + (1 if answer else 0).to_bytes(2, "big") + b"\x00\x00\x00\x00"
        return query[:2] + flags + counts + question + answer
