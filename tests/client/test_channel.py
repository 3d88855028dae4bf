"""Who may be spoken to, and how."""

import socket
from pathlib import Path

import grpc
import pytest

from pathwatch.client import Client, Credentials, PathwatchError
from pathwatch.v1 import signal_pb2

TLS = Path(__file__).parents[1] / "data" / "tls"


@pytest.mark.parametrize("address", ["10.1.2.3:50051", "sidecar.example:50051", "[2001:db8::1]:50051"])
def test_plaintext_off_loopback_is_refused(address):
    with pytest.raises(PathwatchError, match=r"refusing plaintext.*insecure=True") as raised:
        Client(address)
    assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1", "unix:/nowhere"])
def test_plaintext_on_loopback_is_not(address):
    with Client(address) as client, pytest.raises(PathwatchError, match="no pathwatch server at"):
        client.list_runs()


def test_plaintext_anywhere_when_asked_for():
    Client("10.1.2.3:50051", credentials=Credentials(insecure=True)).close()


@pytest.mark.parametrize(
    "credentials",
    [None, Credentials(token="abc"), Credentials(insecure=True, token="abc")],  # noqa: S106
)
def test_a_proxy_of_the_environment_hears_nothing_of_a_plaintext_connection(
    sidecar, monkeypatch, credentials
):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0)
        for name in ("no_proxy", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        with Client(sidecar.address, credentials=credentials, timeout=60) as client:
            assert client.list_runs() == []
        with pytest.raises(BlockingIOError):
            proxy.accept()


@pytest.mark.parametrize(
    "address", ["localhost", "localhost:", ":50051", "localhost:http", "localhost:99999", ""]
)
def test_malformed_addresses_are_refused(address):
    with pytest.raises(PathwatchError, match="is not HOST:PORT"):
        Client(address)


@pytest.mark.parametrize(
    ("credentials", "message"),
    [
        (Credentials(cert="client.pem"), "cert and key belong together"),
        (Credentials(insecure=True, root_ca="ca.pem"), "insecure=True contradicts"),
        (Credentials(insecure=True, tls=True), "insecure=True contradicts"),
        (Credentials(root_ca="/nowhere/ca.pem"), "/nowhere/ca.pem"),
        (Credentials(token="a", token_file="b"), "token and token_file"),  # noqa: S106
        (Credentials(token_file="/nowhere/token"), "/nowhere/token"),  # noqa: S106
        (Credentials(token=""), "must hold one token"),
        (Credentials(token="two words"), "must hold one token"),  # noqa: S106
    ],
)
def test_contradictory_or_missing_credentials_are_refused(credentials, message):
    with pytest.raises(PathwatchError, match=message):
        Client("localhost:1", credentials=credentials)


def test_a_token_goes_with_every_kind_of_call(sidecar, streams, observe):
    credentials = Credentials(token="s3cret", insecure=True)  # noqa: S106
    with Client(sidecar.address, credentials=credentials) as client:
        client.list_runs()
        sidecar.give(signal_pb2.Signal(run="run"))
        assert next(client.watch_signals("run")).run == "run"
    stream = streams(sidecar.address, credentials=credentials)
    observe(stream, 1)
    assert stream.flush(60)
    assert {entry.get("authorization") for entry in sidecar.metadata} == {"Bearer s3cret"}
    assert len(sidecar.metadata) == 3
    assert "s3cret" not in repr(credentials)


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo\n", "schlüssel".encode(), b"\x00\xff"])
def test_a_token_file_that_holds_no_token_is_refused_without_quoting_it(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(PathwatchError, match="must hold one token") as raised:
        Client("localhost:1", credentials=Credentials(token_file=path))
    assert str(raised.value) == f"token file {path}: must hold one token, of printable ASCII without blanks"


def test_a_token_file_is_read_for_every_connection(sidecar, streams, observe, eventually, tmp_path):
    path = tmp_path / "token"
    path.write_text("first\n")
    stream = streams(sidecar.address, credentials=Credentials(token_file=path))
    observe(stream, 1)
    assert stream.flush(60)
    path.write_text("second\n")
    observe(stream, 2)
    assert stream.flush(60)
    assert [entry["authorization"] for entry in sidecar.metadata] == ["Bearer first"]
    sidecar.stop()
    sidecar.start()
    eventually(lambda: len(sidecar.metadata) > 1)
    assert sidecar.metadata[-1]["authorization"] == "Bearer second"


def test_the_environment_gives_a_token_where_none_is_given(monkeypatch):
    monkeypatch.delenv("PATHWATCH_TOKEN", raising=False)
    monkeypatch.delenv("PATHWATCH_TOKEN_FILE", raising=False)
    named = Credentials(root_ca="ca.pem")
    assert Credentials.from_environment() is None
    assert Credentials.from_environment(named) is named
    monkeypatch.setenv("PATHWATCH_TOKEN_FILE", "/job.token")
    assert Credentials.from_environment() == Credentials(token_file="/job.token")  # noqa: S106
    monkeypatch.setenv("PATHWATCH_TOKEN", "s3cret")
    assert Credentials.from_environment(named) == Credentials(root_ca="ca.pem", token="s3cret")  # noqa: S106
    own = Credentials(token_file="/own.token")  # noqa: S106
    assert Credentials.from_environment(own) is own


def test_a_token_alone_is_plaintext_on_loopback_only(sidecar):
    with Client(sidecar.address, credentials=Credentials(token="s3cret")) as client:  # noqa: S106
        client.list_runs()
    assert sidecar.metadata[-1]["authorization"] == "Bearer s3cret"
    secured = Credentials(token="s3cret", tls=True)  # noqa: S106
    with Client(sidecar.address, credentials=secured, timeout=60) as client, pytest.raises(PathwatchError):
        client.list_runs()
    assert len(sidecar.metadata) == 1


@pytest.fixture
def mutual_tls(sidecar):
    sidecar.stop()
    sidecar.port = 0
    sidecar.credentials = grpc.ssl_server_credentials(
        [((TLS / "server.key").read_bytes(), (TLS / "server.pem").read_bytes())],
        root_certificates=(TLS / "ca.pem").read_bytes(),
        require_client_auth=True,
    )
    sidecar.start()
    return sidecar


def test_mutual_tls(mutual_tls, streams, observe):
    credentials = Credentials(
        root_ca=TLS / "ca.pem",
        cert=TLS / "client.pem",
        key=TLS / "client.key",
        token="s3cret",  # noqa: S106
    )
    with Client(mutual_tls.address, credentials=credentials) as client:
        assert list(client.list_runs()) == []
    stream = streams(mutual_tls.address, credentials=credentials)
    observe(stream, 1)
    assert stream.flush(60)
    assert mutual_tls.metadata[0]["authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("credentials", [None, Credentials(), Credentials(root_ca=TLS / "ca.pem")])
def test_mutual_tls_keeps_out_whoever_lacks_a_certificate(mutual_tls, credentials):
    client = Client(mutual_tls.address, credentials=credentials, timeout=60)
    with client, pytest.raises(PathwatchError) as raised:
        client.list_runs()
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    assert "\n" not in str(raised.value)
