"""A TCP proxy on a loopback port that does to connections what networks do; in a thread of its own.

Every control has taken effect when it returns. Bytes that pass are not looked at, so TLS passes, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

_CHUNK = 16 << 10
_IN_FLIGHT = 64
"""Chunks a delayed direction holds before it stops reading."""
_TIMEOUT = 60.0
_QUIET_SECONDS = 0.005
"""Without a byte: a message that is sent at once has come as a whole."""


class ChaosProxy:
    """A context manager: `with ChaosProxy("127.0.0.1:50051") as proxy: connect(proxy.address)`."""

    def __init__(self, target_address: str) -> None:
        self.target = target_address
        """HOST:PORT where new connections go; may be changed, as after a restart on another port."""
        self.accepted = 0
        """Connections taken so far."""
        self.resets = 0
        """Connections reset so far, by `cut`, `cut_after`, or because the target was not there."""
        self.bytes_taken = 0
        """Bytes that came from clients so far, forwarded or not."""
        self.bytes_up = 0
        """Bytes forwarded towards the target so far."""
        # The port stays ours while nobody listens on it; without a listener the kernel refuses.
        self._holder = _bound(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._holder.getsockname())
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-proxy")
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._abandoned: list[asyncio.StreamWriter] = []
        self.flowing = asyncio.Event()
        self.flowing_up = asyncio.Event()
        self.latency = 0.0
        self.rate: float | None = None
        self.cut_at: int | None = None

    def __enter__(self) -> ChaosProxy:
        self._thread.start()
        self.resume()
        self.accept()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._holder.close()

    def cut(self) -> None:
        """Reset all connections, at both ends; new ones are taken."""
        self._do(self.reset_all)

    def cut_after(self, nbytes: int) -> None:
        """Forward `nbytes` more towards the target, then end all connections, once.

        Clients see a reset; the target sees exactly these bytes, and the end of the connection.
        """

        def arm() -> None:
            self.cut_at = self.bytes_up + nbytes

        self._do(arm)

    def vanish(self) -> None:
        """Clients see a reset; the target hears nothing of it, as when a host has lost its power."""

        def leave() -> None:
            for connection in list(self._connections):
                self._abandoned.append(connection.target_writer)
                connection.end(keep_target=True)

        self._do(leave)

    def stall(self) -> None:
        """Forward nothing more in either direction; connections stay open, new ones are taken."""
        self._do(self.flowing.clear)

    def hold_back(self) -> None:
        """Forward nothing more towards the target; answers pass, so nobody waits for what he asked before.

        It begins between two messages: where one is sent at once, all of it is held or nothing. Not after a
        cut: of what was lost by it, it would wait to be forwarded.
        """

        async def act() -> None:
            seen = -1
            while not seen == self.bytes_taken == self.bytes_up:
                seen = self.bytes_taken
                await asyncio.sleep(_QUIET_SECONDS)
            self.flowing_up.clear()

        self._run(act())

    def resume(self) -> None:
        """Undo `stall` and `hold_back`."""

        def let_on() -> None:
            self.flowing.set()
            self.flowing_up.set()

        self._do(let_on)

    def refuse(self) -> None:
        """Take no new connections (the kernel refuses them); open ones go on."""
        self._run(self._stop_listening())

    def accept(self) -> None:
        """Undo `refuse`."""
        self._run(self._listen())

    def delay(self, seconds: float) -> None:
        """Forward every byte that much later, in each direction; 0 = at once."""

        def change() -> None:
            self.latency = seconds

        self._do(change)

    def throttle(self, bytes_per_second: float | None) -> None:
        """Forward at most that much per connection and direction; None = as fast as it goes."""

        def change() -> None:
            self.rate = bytes_per_second

        self._do(change)

    def wait_for(self, condition: Callable[[ChaosProxy], object], timeout: float = _TIMEOUT) -> None:
        """Wait until a condition on the counters holds; AssertionError if it does not in time."""
        deadline = time.monotonic() + timeout
        while not condition(self):
            assert time.monotonic() < deadline, f"not within {timeout} s: {self.accepted=} {self.resets=}"
            time.sleep(0.002)

    # In the proxy's thread.

    def reset_all(self) -> None:
        for connection in list(self._connections):
            connection.end()

    def cut_now(self) -> None:
        self.cut_at = None
        for connection in list(self._connections):
            connection.end(flush_target=True)

    def _do(self, action: Callable[[], None]) -> None:
        async def act() -> None:
            action()

        self._run(act())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_TIMEOUT)

    async def _listen(self) -> None:
        if self._server is None:
            listener = _bound(self._holder.getsockname())
            self._server = await asyncio.start_server(self._take, sock=listener)

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        host, _, port = self.target.rpartition(":")
        try:
            target = await asyncio.open_connection(host, int(port))
        except OSError:
            self.resets += 1
            _reset(writer)
            return
        connection = _Connection(self, (reader, writer), target)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    async def _close(self) -> None:
        await self._stop_listening()
        self.reset_all()
        for writer in self._abandoned:
            _reset(writer)
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=_TIMEOUT / 2)


class _Connection:
    """One client's connection and the one to the target that belongs to it."""

    def __init__(
        self,
        proxy: ChaosProxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        target: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._client_reader, self._client_writer = client
        self._target_reader, self.target_writer = target
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Returns once either end or a control has ended it."""
        works = [
            asyncio.ensure_future(work)
            for work in (
                self._forward(self._client_reader, self.target_writer, up=True),
                self._forward(self._target_reader, self._client_writer, up=False),
                self._ended.wait(),
            )
        ]
        try:
            await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
            if not self._ended.is_set():
                self._client_writer.close()
                self.target_writer.close()

    def end(self, *, keep_target: bool = False, flush_target: bool = False) -> None:
        """Reset both ends; the target is to hear nothing (`keep_target`), or first all that was sent."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._proxy.resets += 1
        _reset(self._client_writer)
        if flush_target:
            self.target_writer.close()
        elif not keep_target:
            _reset(self.target_writer)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        """Until the reader's end. Reading and writing go on side by side, so that delays overlap."""
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_IN_FLIGHT)

        async def read() -> None:
            with contextlib.suppress(OSError):
                while chunk := await reader.read(_CHUNK):
                    self._proxy.bytes_taken += len(chunk) if up else 0
                    await chunks.put((time.monotonic(), chunk))
            await chunks.put((time.monotonic(), b""))

        reading = asyncio.ensure_future(read())
        try:
            while True:
                came, chunk = await chunks.get()
                await asyncio.sleep(max(0.0, came + self._proxy.latency - time.monotonic()))
                await self._proxy.flowing.wait()
                if up:
                    await self._proxy.flowing_up.wait()
                if not chunk or self._ended.is_set():
                    return
                await self._write(writer, chunk, up=up)
        except OSError:
            return
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _write(self, writer: asyncio.StreamWriter, chunk: bytes, *, up: bool) -> None:
        proxy = self._proxy
        while chunk:
            size = len(chunk) if proxy.rate is None else max(1, min(len(chunk), int(proxy.rate / 20)))
            cut = up and proxy.cut_at is not None and proxy.bytes_up + size >= proxy.cut_at
            if cut and proxy.cut_at is not None:
                size = max(0, proxy.cut_at - proxy.bytes_up)
            if proxy.rate is not None:
                await asyncio.sleep(size / proxy.rate)
            writer.write(chunk[:size])
            if up:
                proxy.bytes_up += size
            if cut:
                proxy.cut_now()
                return
            await writer.drain()
            chunk = chunk[size:]


def _bound(address: tuple[str, int]) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(address)
    return bound


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST instead of FIN."""
    raw = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
