"""The HTTP listener: who reads what, over what, and that slow or many connections do not hold it up."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from pathwatch.server.access import reloading
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig, TlsFiles
from pathwatch.server.web import listener

Eventually = Callable[[Callable[[], Any]], Any]
SECRETS = {
    "prometheus": {"scopes": ["read"]},
    "job": {"scopes": ["ingest", "control"]},
    "team": {"scopes": ["read"], "runs": ["abc-*"]},
    "late": {"scopes": ["read"], "expires": "2026-01-01"},
}


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Starts a server; the address of its HTTP side. Files that change are seen at once."""
    monkeypatch.setattr(reloading, "CHECK_SECONDS", 0)
    with ExitStack() as closing:
        yield (
            lambda **config: (
                closing.enter_context(
                    BackgroundServer(ServerConfig(data=tmp_path / "data", **config))
                ).http_address
            )
        )


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return write_tokens(tmp_path / "tokens.yaml", list(SECRETS))


def write_tokens(path: Path, names: list[str]) -> Path:
    entries = [
        {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), **SECRETS[name]} for name in names
    ]
    path.with_suffix(".new").write_text(yaml.safe_dump(entries))
    os.replace(path.with_suffix(".new"), path)
    return path


def get(address: str, path: str, authorization: str | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(address, timeout=60)
    headers = {} if authorization is None else {"Authorization": authorization}
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, dict(response.getheaders()), content


def test_without_tokens_everything_is_open(start: Callable[..., str]) -> None:
    address = start()
    assert [get(address, path)[0] for path in ("/", "/metrics", "/healthz", "/none")] == [200, 200, 200, 404]


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("Bearer wrong", 401),
        ("Basic prometheus", 401),
        ("prometheus", 401),
        ("Bearer late", 401),
        ("Bearer job", 403),
        ("Bearer team", 403),
        ("Bearer prometheus", 200),
        ("bearer  prometheus ", 200),
        ("Bearer schl\xfcssel", 401),
    ],
)
def test_with_tokens(start: Callable[..., str], tokens: Path, authorization: str | None, status: int) -> None:
    """The metrics and the API name every run: they need the scope read, for all of them."""
    address = start(http_tokens=tokens)
    for path in ("/metrics", "/api/v1/runs", "/none"):
        got, headers, content = get(address, path, authorization)
        assert got == (404 if (status, path) == (200, "/none") else status)
        assert ("WWW-Authenticate" in headers) == (status == 401)
        if status != 200:
            assert b"pathwatch_" not in content
            assert b'"runs"' not in content
        else:
            assert path == "/none" or content
    for path in ("/healthz", "/", "/static/js/main.js"):  # without data
        assert get(address, path)[0] == 200
    _, _, scraped = get(address, "/metrics", "Bearer prometheus")
    reason = {401: "unauthenticated", 403: "forbidden", 200: None}[status]
    for name in ("unauthenticated", "forbidden"):
        count = 3.0 if name == reason else 0.0
        assert f'refused_calls_total{{listener="http",reason="{name}"}} {count}'.encode() in scraped


def test_tokens_are_read_again(start: Callable[..., str], tokens: Path) -> None:
    address = start(http_tokens=tokens)
    assert get(address, "/metrics", "Bearer prometheus")[0] == 200
    write_tokens(tokens, ["job"])
    assert get(address, "/metrics", "Bearer prometheus")[0] == 401


def issue(authority: trustme.CA, files: TlsFiles) -> None:
    cert = authority.issue_cert("localhost", "127.0.0.1")
    for path, blob in ((files.key, cert.private_key_pem), (files.cert, cert.cert_chain_pems[0])):
        path.with_suffix(".new").write_bytes(blob.bytes())
        os.replace(path.with_suffix(".new"), path)


def test_the_scrape_configuration_of_the_documentation(
    start: Callable[..., str], tokens: Path, tmp_path: Path
) -> None:
    """What Prometheus does with it: HTTPS checked by `ca_file`, the content of a file as bearer token."""
    documentation = (Path(__file__).parents[3] / "docs" / "security.md").read_text()
    block = documentation.partition("    scrape_configs:\n")[2].partition("\n\n")[0]
    (job,) = yaml.safe_load(block)
    assert job.keys() == {"job_name", "scheme", "tls_config", "authorization", "static_configs"}
    authority, files = trustme.CA(), TlsFiles(cert=tmp_path / "cert.pem", key=tmp_path / "key.pem")
    issue(authority, files)
    address = start(http_tokens=tokens, tls=files, http_tls=True)
    mounted = {job["tls_config"]["ca_file"]: authority.cert_pem.bytes().decode()}
    mounted[job["authorization"]["credentials_file"]] = "prometheus\n"
    assert job["scheme"] == "https"
    context = ssl.create_default_context(cadata=mounted[job["tls_config"]["ca_file"]])
    connection = http.client.HTTPSConnection(address, timeout=60, context=context)
    token = mounted[job["authorization"]["credentials_file"]].strip()
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {token}"})
    response = connection.getresponse()
    assert (response.status, b"pathwatch_" in response.read()) == (200, True)
    connection.close()


def test_https_with_a_certificate_that_changes(start: Callable[..., str], tmp_path: Path) -> None:
    authorities = [trustme.CA(), trustme.CA()]
    files = TlsFiles(cert=tmp_path / "cert.pem", key=tmp_path / "key.pem")

    def answers(authority: trustme.CA) -> bool:
        context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
        connection = http.client.HTTPSConnection(address, timeout=60, context=context)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().status == 200
        except ssl.SSLCertVerificationError:
            return False
        finally:
            connection.close()

    issue(authorities[0], files)
    address = start(tls=files, http_tls=True)
    assert [answers(authority) for authority in authorities] == [True, False]
    issue(authorities[1], files)
    assert [answers(authority) for authority in authorities] == [False, True]
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        get(address, "/metrics")


@pytest.fixture
def hanging() -> Iterator[Callable[[str, bytes], socket.socket]]:
    """Connections that say something, and then nothing more."""
    with ExitStack() as closing:

        def connect(address: str, said: bytes) -> socket.socket:
            host, _, port = address.rpartition(":")
            connection = closing.enter_context(socket.create_connection((host, int(port)), 20))
            connection.sendall(said)
            return connection

        yield connect


def http_threads() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


@pytest.mark.slow
def test_idle_connections_hold_up_nobody(
    start: Callable[..., str],
    hanging: Callable[[str, bytes], socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Slowloris: five times as many half requests as there is room for. Others are answered all the same."""
    # Only the cut makes room, and a machine that stands still for a second turns nobody away.
    for name, seconds in (("IDLE_SECONDS", 3600.0), ("TOTAL_SECONDS", 3600.0), ("ROOM_SECONDS", 30.0)):
        monkeypatch.setattr(listener, name, seconds)
    address = start()
    before = http_threads()
    hung = []
    for number in range(5 * listener.CONNECTIONS):
        hung.append(hanging(address, b"GET /metrics HTTP/1.1\r\nHost: " + bytes([65 + number % 26])))
        # Threads whose connections were cut may not have ended yet.
        assert http_threads() - before < 2 * listener.CONNECTIONS
        if number % 40 == 39:
            assert get(address, "/healthz")[0] == 200
    # The oldest were cut.
    assert [connection.recv(1) for connection in hung[:10]] == [b""] * 10
    assert get(address, "/metrics")[0] == 200


def test_without_threads_to_be_had_no_room_is_lost(
    start: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "CONNECTIONS", 2)
    address = start()
    begin = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if "process_request_thread" in thread.name:
            raise RuntimeError("can't start new thread")
        begin(thread)

    with monkeypatch.context() as starved:
        starved.setattr(threading.Thread, "start", fail)
        for _ in range(4):
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                get(address, "/healthz")
    assert get(address, "/healthz")[0] == 200


@pytest.mark.slow
def test_a_request_that_drips_is_cut_in_the_end(
    start: Callable[..., str],
    hanging: Callable[[str, bytes], socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each byte in time, the whole never."""
    monkeypatch.setattr(listener, "TOTAL_SECONDS", 1.0)
    dripping = hanging(start(), b"GET / HTTP/1.1\r\n")
    ended = threading.Event()

    def drip() -> None:
        while not ended.wait(0.05):
            try:
                dripping.sendall(b"X")
            except OSError:
                return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        assert dripping.recv(1) == b""
    except ConnectionResetError:
        pass
    finally:
        ended.set()
        thread.join()


def test_a_silent_connection_is_let_go(
    start: Callable[..., str],
    hanging: Callable[[str, bytes], socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    before = http_threads()
    monkeypatch.setattr(listener, "IDLE_SECONDS", 0.5)
    silent = hanging(start(), b"")
    assert silent.recv(1) == b""
    eventually(lambda: http_threads() <= before)
