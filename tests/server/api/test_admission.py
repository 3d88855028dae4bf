"""Calls count, and are refused, before anything of their request is read."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from serving import serving

from pathwatch.server.config import Limits

Code = grpc.StatusCode
GET_RUN = "/pathwatch.v1.RunService/GetRun"
MEBIBYTE = 1 << 20


@pytest.fixture
def call_silently() -> Iterator[Callable[[grpc.Channel], Any]]:
    """Begins calls of GetRun that never send their request."""
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait()
        yield from ()

    yield lambda channel: channel.stream_unary(GET_RUN).future(nothing())
    over.set()


def write_tokens(path: Path) -> Path:
    path.write_text(f"- {{name: a, sha256: '{hashlib.sha256(b'a').hexdigest()}', scopes: [read]}}\n")
    path.chmod(0o600)
    return path


@pytest.mark.slow
def test_strangers_hold_no_calls_open(serve: Any, call_silently: Any, tmp_path: Path) -> None:
    service = serve(Limits(calls=8, hello_seconds=3600), tokens=write_tokens(tmp_path / "tokens.yaml"))
    for _ in range(20):
        assert call_silently(service.channel).exception(30).code() is Code.UNAUTHENTICATED


def test_calls_without_their_request_count(serve: Any, call_silently: Any, eventually: Any) -> None:
    service = serve(Limits(calls=2, hello_seconds=3600))
    silent = [call_silently(service.channel) for _ in range(2)]

    def code() -> Code:
        with pytest.raises(grpc.RpcError) as error:
            service.get("none")
        return error.value.code()

    def is_full() -> bool:
        """A call that asks may have come before the silent ones, and have taken the room of one."""
        silent[:] = [call_silently(service.channel) if call.done() else call for call in silent]
        return code() is Code.RESOURCE_EXHAUSTED

    eventually(is_full)
    assert not any(call.done() for call in silent)
    silent[0].cancel()
    eventually(lambda: code() is Code.NOT_FOUND)


@pytest.mark.slow
def test_a_request_that_does_not_come_ends_the_call(serve: Any, call_silently: Any) -> None:
    service = serve(Limits(hello_seconds=1))
    error = call_silently(service.channel).exception(30)
    assert error.code() is Code.DEADLINE_EXCEEDED
    assert "no request came within 1 s" in error.details()


def test_a_call_that_ends_without_a_request_is_refused(serve: Any) -> None:
    call = serve().channel.stream_unary(GET_RUN).future(iter(()))
    assert call.exception(30).code() is Code.INVALID_ARGUMENT


@pytest.mark.slow
def test_what_strangers_send_is_not_kept(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens.yaml")
    with serving(tmp_path / "data", tmp_path / "log", "--tokens", str(tokens)) as server:

        def peak() -> int:
            """Most memory that the server has taken so far, in bytes."""
            status = Path(f"/proc/{server.process.pid}/status").read_text()
            found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
            assert found is not None
            return int(found[1]) << 10

        before = peak()
        large = bytes(60 * MEBIBYTE)
        with grpc.insecure_channel(server.address, options=[("grpc.max_send_message_length", -1)]) as channel:
            calls = [channel.unary_unary(GET_RUN).future(large) for _ in range(6)]
            assert {call.exception(60).code() for call in calls} == {Code.UNAUTHENTICATED}
        assert peak() - before < 100 * MEBIBYTE
