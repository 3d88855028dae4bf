"""TLS of a running server: what it speaks, and certificates that change under live streams."""

from __future__ import annotations

import socket
import ssl
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from chaos_proxy import ChaosProxy
from pem_folder import PemFolder

from pathwatch.client import Client, Credentials, PathwatchError, RoutingStream
from pathwatch.server.access import reloading
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig, TlsFiles
from pathwatch.v1 import run_pb2

RUN = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4))


@dataclass
class Secured:
    """A server with mutual TLS, and the files of both sides."""

    server: BackgroundServer
    theirs: PemFolder
    ours: PemFolder

    def lets_in(self, credentials: Credentials | None = None) -> bool:
        credentials = credentials or self.ours.credentials()
        with Client(self.server.grpc_address, credentials=credentials, timeout=60) as client:
            try:
                client.list_runs()
            except PathwatchError as error:
                if error.code is not grpc.StatusCode.UNAVAILABLE:
                    raise
                return False
        return True

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://{self.server.http_address}/metrics", timeout=60) as page:
            return page.read().decode()


@pytest.fixture
def authorities() -> tuple[trustme.CA, trustme.CA]:
    return trustme.CA(), trustme.CA()


@pytest.fixture
def secured(
    tmp_path: Path, authorities: tuple[trustme.CA, trustme.CA], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Secured]:
    """All by the first authority; changes are seen at once."""
    monkeypatch.setattr(reloading, "CHECK_SECONDS", 0)
    old, _ = authorities
    theirs, ours = PemFolder(tmp_path / "server"), PemFolder(tmp_path / "client")
    theirs.issue(old, trusts=old)
    ours.issue(old, trusts=old)
    folder = theirs.folder
    files = TlsFiles(cert=folder / "cert.pem", key=folder / "key.pem", client_ca=folder / "ca.pem")
    config = ServerConfig(data=tmp_path / "data", tls=files, drain_seconds=1)
    with BackgroundServer(config) as server:
        yield Secured(server, theirs, ours)


@pytest.fixture
def streams() -> Iterator[Callable[..., RoutingStream]]:
    with ExitStack() as closing:

        def make(secured: Secured, address: str = "", **options: Any) -> RoutingStream:
            stream = RoutingStream(
                address or secured.server.grpc_address,
                run="run",
                credentials=secured.ours.credentials(),
                **options,
            )
            closing.callback(stream.close, 5)
            return stream

        yield make


def watermarked(stream: RoutingStream, step: int) -> bool:
    stream.watermark(step)
    return stream.flush(60)


def test_certificates_change_under_live_streams(
    secured: Secured, authorities: tuple[trustme.CA, trustme.CA], streams: Callable[..., RoutingStream]
) -> None:
    """New connections get the new ones, of both sides; open streams live on."""
    old, new = authorities
    stream = streams(secured, config=RUN)
    assert watermarked(stream, 1)
    secured.theirs.issue(new, trusts=new)
    assert watermarked(stream, 2)
    assert not secured.lets_in()  # they trust the old authority
    former = secured.ours.credentials()
    secured.ours.issue(old, trusts=new)
    assert not secured.lets_in(former)  # they know the server now, their own certificate is of the old one
    secured.ours.issue(new, trusts=new)
    assert secured.lets_in()
    assert watermarked(stream, 3)
    assert stream.stats.reconnects == 0


def test_a_client_reads_its_files_anew_when_it_connects_again(
    secured: Secured, authorities: tuple[trustme.CA, trustme.CA], streams: Callable[..., RoutingStream]
) -> None:
    """What both sides were given meanwhile is enough: nobody restarts the job."""
    _, new = authorities
    with ChaosProxy(secured.server.grpc_address) as network:
        stream = streams(secured, network.address, config=RUN)
        assert watermarked(stream, 1)
        secured.theirs.issue(new, trusts=new)
        secured.ours.issue(new, trusts=new)
        network.cut()
        assert watermarked(stream, 2)
        assert stream.stats.reconnects >= 1
        stream.close()
    with Client(secured.server.grpc_address, credentials=secured.ours.credentials()) as client:
        assert client.get_run("run").name == "run"


@pytest.mark.parametrize("broken", ["junk", "another's key", "no authority", "gone"])
def test_files_that_cannot_be_used_leave_the_former_in_force(
    secured: Secured,
    authorities: tuple[trustme.CA, trustme.CA],
    broken: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    old, new = authorities
    cert, other = (old.issue_cert("localhost", "127.0.0.1") for _ in range(2))
    chain, key, ca = cert.cert_chain_pems[0].bytes(), cert.private_key_pem.bytes(), old.cert_pem.bytes()
    match broken:
        case "junk":
            secured.theirs.put(b"junk", key, ca)
        case "another's key":
            secured.theirs.put(chain, other.private_key_pem.bytes(), ca)
        case "no authority":
            secured.theirs.put(chain, key, key)
        case "gone":
            (secured.theirs.folder / "..data").unlink()
    for _ in range(3):
        assert secured.lets_in()
    assert caplog.text.count("the TLS certificate changed and cannot be used") == 1
    assert 'pathwatch_reload_failures_total{file="tls"} 1.0' in secured.metrics()
    assert 'pathwatch_reload_failing{file="tls"} 1.0' in secured.metrics()
    secured.theirs.issue(new, trusts=old)
    assert not secured.lets_in()
    assert 'pathwatch_reload_failing{file="tls"} 0.0' in secured.metrics()


def handshake(address: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    host, _, port = address.rpartition(":")
    return context.wrap_socket(socket.create_connection((host, int(port)), 20), server_hostname="localhost")


def client_context(secured: Secured) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(secured.ours.folder / "ca.pem"))
    context.load_cert_chain(secured.ours.folder / "cert.pem", secured.ours.folder / "key.pem")
    context.set_alpn_protocols(["h2"])
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_it_speaks(secured: Secured, version: ssl.TLSVersion) -> None:
    """TLS 1.2 and 1.3, with forward secrecy and authenticated encryption, whatever else a client offers."""
    context = client_context(secured)
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    with handshake(secured.server.grpc_address, context) as connection:
        name, _, bits = connection.cipher()  # type: ignore[misc]
        assert connection.version() == version.name.replace("_", ".")
        assert "GCM" in name or "CHACHA20" in name
        assert "ECDHE" in name or version is ssl.TLSVersion.TLSv1_3
        assert bits >= 128


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_older_versions_are_refused_by_the_server(secured: Secured) -> None:
    context = client_context(secured)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionResetError)) as raised:
        handshake(secured.server.grpc_address, context)
    # It is the other side that ended it, ours was willing.
    ended = {"UNEXPECTED_EOF_WHILE_READING", "TLSV1_ALERT_PROTOCOL_VERSION", None}
    assert getattr(raised.value, "reason", None) in ended


def test_plaintext_and_strangers_are_refused(
    secured: Secured, authorities: tuple[trustme.CA, trustme.CA]
) -> None:
    old, _ = authorities
    ca = secured.ours.folder / "ca.pem"
    assert not secured.lets_in(Credentials(insecure=True))
    assert not secured.lets_in(Credentials(root_ca=ca))
    secured.ours.issue(trustme.CA(), trusts=old)
    assert not secured.lets_in()
    secured.ours.issue(old, trusts=old)
    assert secured.lets_in()
