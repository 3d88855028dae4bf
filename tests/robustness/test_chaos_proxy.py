"""The proxy that other tests rely on does to connections what it says."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest
from chaos_proxy import ChaosProxy


class Echo(socketserver.ThreadingTCPServer):
    """Sends back what it gets; remembers all of it, and how each connection ended."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        self.received = bytearray()
        self.ends: list[str] = []
        super().__init__(("127.0.0.1", 0), _EchoHandler)

    @property
    def address(self) -> str:
        return "{}:{}".format(*self.server_address)


class _EchoHandler(socketserver.BaseRequestHandler):
    server: Echo

    def handle(self) -> None:
        try:
            while data := self.request.recv(65536):
                self.server.received += data
                self.request.sendall(data)
            self.server.ends.append("closed")
        except ConnectionError:
            self.server.ends.append("reset")


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[ChaosProxy]:
    with ChaosProxy(echo.address) as proxy:
        yield proxy


def connect(proxy: ChaosProxy, timeout: float = 60) -> socket.socket:
    host, _, port = proxy.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout)


def exchange(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    received = b""
    while len(received) < len(data):
        received += client.recv(65536)
    return received


def until(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_bytes_pass_both_ways(proxy: ChaosProxy) -> None:
    data = bytes(range(256)) * 4000
    with connect(proxy) as client:
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()
        received = b""
        while len(received) < len(data):
            received += client.recv(65536)
        sender.join()
    assert received == data
    assert proxy.bytes_up == len(data)


def test_an_end_is_passed_on(proxy: ChaosProxy, echo: Echo) -> None:
    with connect(proxy) as client:
        exchange(client, b"hello")
    until(lambda: echo.ends == ["closed"])


def test_cut_resets_all_connections_and_takes_new_ones(proxy: ChaosProxy, echo: Echo) -> None:
    clients = [connect(proxy) for _ in range(2)]
    for client in clients:
        exchange(client, b"hello")
    proxy.cut()
    for client in clients:
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        client.close()
    until(lambda: echo.ends == ["reset", "reset"])
    assert proxy.resets == 2
    with connect(proxy) as client:
        assert exchange(client, b"again") == b"again"


def test_cut_after_lets_exactly_so_many_bytes_through(proxy: ChaosProxy, echo: Echo) -> None:
    with connect(proxy) as client:
        exchange(client, b"12345")
        proxy.cut_after(7)
        client.sendall(b"abcdefghijk")
        proxy.wait_for(lambda it: it.resets == 1)
    until(lambda: echo.ends)
    assert bytes(echo.received) == b"12345abcdefg"
    with connect(proxy) as client:
        assert exchange(client, b"again") == b"again"


def test_vanish_leaves_the_target_without_a_word(proxy: ChaosProxy, echo: Echo) -> None:
    with connect(proxy) as client:
        exchange(client, b"hello")
        proxy.vanish()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connect(proxy) as client:
        exchange(client, b"a newer connection")
    until(lambda: echo.ends == ["closed"])  # the newer one's


def test_stall_holds_everything_until_resumed(proxy: ChaosProxy, echo: Echo) -> None:
    with connect(proxy) as client, connect(proxy) as silent:
        exchange(client, b"hello")
        proxy.stall()
        client.sendall(b"more")
        with connect(proxy) as late:
            late.sendall(b"late")
            for other in (client, silent, late):
                other.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    other.recv(1)
            assert bytes(echo.received) == b"hello"
            proxy.resume()
            client.settimeout(60)
            late.settimeout(60)
            assert client.recv(10) == b"more"
            assert late.recv(10) == b"late"


def test_hold_back_lets_answers_pass(proxy: ChaosProxy, echo: Echo) -> None:
    with connect(proxy) as client:
        proxy.delay(0.3)
        client.sendall(b"asked before")
        proxy.wait_for(lambda proxy: proxy.bytes_taken)
        proxy.hold_back()
        client.sendall(b"more")
        assert client.recv(100) == b"asked before"
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert bytes(echo.received) == b"asked before"
        proxy.resume()
        client.settimeout(60)
        assert client.recv(100) == b"more"


def test_refuse_refuses_new_connections_only(proxy: ChaosProxy) -> None:
    with connect(proxy) as client:
        exchange(client, b"hello")
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
        assert exchange(client, b"still here") == b"still here"
        proxy.accept()
        with connect(proxy) as other:
            assert exchange(other, b"new") == b"new"


def test_delay_and_throttle(proxy: ChaosProxy) -> None:
    with connect(proxy) as client:
        proxy.delay(0.1)
        start = time.monotonic()
        exchange(client, b"there and back")
        assert time.monotonic() - start >= 0.2
        proxy.delay(0)
        proxy.throttle(20_000)
        start = time.monotonic()
        exchange(client, bytes(4_000))
        assert time.monotonic() - start >= 0.2
        proxy.throttle(None)
        assert exchange(client, b"fast") == b"fast"


def test_a_target_that_is_away_means_a_reset_and_another_may_be_named(proxy: ChaosProxy, echo: Echo) -> None:
    there = proxy.target
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        proxy.target = "{}:{}".format(*nobody.getsockname())
        # The reset may come before `connect` has returned.
        with pytest.raises(ConnectionResetError), connect(proxy) as client:
            client.recv(1)
    proxy.target = there
    with connect(proxy) as client:
        assert exchange(client, b"hello") == b"hello"
