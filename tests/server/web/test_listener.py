"""What the HTTP listener says of connections and applications that fail: nothing, and in the log."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pathwatch.server.web import listener


@contextmanager
def listening(application: Callable[..., Iterable[bytes]]) -> Iterator[socket.socket]:
    """A connection that has sent its request; in the end, that is over."""
    server = listener.Listener("127.0.0.1", 0, application, None)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    try:
        with socket.create_connection(server.server_address, timeout=60) as connection:
            # Before anybody waits for it, however short for requests the time is.
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            serving.start()
            try:
                yield connection
            finally:
                server.shutdown()
                serving.join()
    finally:
        server.server_close()


def test_who_does_not_read_his_answer_is_a_broken_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """The standard library prints a traceback for each."""
    monkeypatch.setattr(listener, "IDLE_SECONDS", 0.1)
    ended = threading.Event()
    give_back = listener.Listener._give_back

    def give_back_and_say(self: listener.Listener, request: Any) -> None:
        give_back(self, request)
        ended.set()

    monkeypatch.setattr(listener.Listener, "_give_back", give_back_and_say)

    asked = threading.Event()

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        asked.set()
        start_response("200 OK", [("Content-Length", "50000000")])
        return [bytes(50_000_000)]

    with listening(application):
        assert ended.wait(60)
    assert asked.is_set()
    assert not caplog.records
    assert capfd.readouterr().err == ""


def test_a_fault_of_an_application_is_said_in_the_log(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise OSError("of the application")

    with listening(application) as connection:
        assert connection.makefile("rb").readline().startswith(b"HTTP/1.0 500 ")
    assert [record.getMessage() for record in caplog.records] == ["a fault of the service"]
    assert "of the application" in caplog.text
    assert capfd.readouterr().err == ""
