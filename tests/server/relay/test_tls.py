"""A relay to a real server over TLS, found by a name: what both sides show, and what is renewed."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
import yaml
from chaos_proxy import ChaosProxy
from pem_folder import PemFolder
from relaying import HandRank, RelayProcess

from pathwatch.client import Client, PathwatchError
from pathwatch.server.access import reloading
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import RelayConfig, ServerConfig, TlsFiles
from pathwatch.v1 import routing_pb2, run_pb2

MakeBatch = Callable[..., routing_pb2.ObservationBatch]
Watermark = routing_pb2.Watermark
CONFIG = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4), keep_observations=True)
TOKEN = "relays"  # noqa: S105
NAME = "pathwatch.example"
NAMES = ("localhost", NAME)
"""Those that the server has its certificate for: no address is among them."""


@dataclass
class Secured:
    """A server with mutual TLS and a token, and the files of both sides."""

    server: BackgroundServer
    theirs: PemFolder
    ours: PemFolder
    token: Path

    @property
    def port(self) -> str:
        return self.server.grpc_address.rpartition(":")[2]

    def config(self, **options: Any) -> RelayConfig:
        """Of a relay that has all it needs, but for what is said."""
        folder = self.ours.folder
        known: dict[str, Any] = {
            "upstream": f"dns:///localhost:{self.port}",
            "upstream_ca": folder / "ca.pem",
            "upstream_cert": folder / "cert.pem",
            "upstream_key": folder / "key.pem",
            "upstream_token_file": self.token,
        }
        return RelayConfig(**known | options)

    @contextmanager
    def relayed(self, **options: Any) -> Iterator[tuple[BackgroundServer, Client]]:
        """A relay, and a client of it that shows nothing."""
        config = self.config(**options)
        with BackgroundServer(config) as relay, Client(relay.grpc_address, timeout=60) as client:
            yield relay, client


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secured(tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Iterator[Secured]:
    """The server sees at once that its files have changed."""
    monkeypatch.setattr(reloading, "CHECK_SECONDS", 0)
    theirs, ours = PemFolder(tmp_path / "server"), PemFolder(tmp_path / "relay")
    theirs.issue(authority, trusts=authority, names=NAMES)
    ours.issue(authority, trusts=authority)
    tokens, token = tmp_path / "tokens.yaml", tmp_path / "token"
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    entry = {"name": "relay", "sha256": digest, "scopes": ["ingest", "read", "control"]}
    tokens.write_text(yaml.safe_dump([entry]))
    tokens.chmod(0o600)
    token.write_text(f"{TOKEN}\n")
    folder = theirs.folder
    files = TlsFiles(cert=folder / "cert.pem", key=folder / "key.pem", client_ca=folder / "ca.pem")
    config = ServerConfig(data=tmp_path / "data", tls=files, tokens=tokens, drain_seconds=1)
    with BackgroundServer(config) as server:
        yield Secured(server, theirs, ours, token)


@pytest.mark.slow
def test_all_that_ranks_and_users_say_goes_through(secured: Secured, make_batch: MakeBatch) -> None:
    """The command as users start it; what is on the server is what it says itself."""
    config = secured.config()
    options = {
        "--upstream-ca": config.upstream_ca,
        "--upstream-cert": config.upstream_cert,
        "--upstream-key": config.upstream_key,
        "--upstream-token-file": config.upstream_token_file,
    }
    credentials = replace(secured.ours.credentials(), token=TOKEN)
    with (
        RelayProcess(config.upstream, *(str(part) for option in options.items() for part in option)) as relay,
        Client(relay.address, timeout=60) as through,
        Client(f"localhost:{secured.port}", credentials=credentials, timeout=60) as direct,
    ):
        through.create_run("run", CONFIG)
        HandRank("run", 0, 1).send(relay.address, [make_batch(0), Watermark(step=0)])
        watched = through.watch_signals("run", timeout=60)
        assert any(signal.step == 0 for signal in watched)
        assert through.finish_run("run").state == run_pb2.RUN_STATE_FINISHED
        assert [window.step for window in through.get_metrics("run").windows] == [0]
        for ask in (
            lambda client: client.get_run("run"),
            lambda client: client.get_signal("run"),
            lambda client: client.get_metrics("run"),
            lambda client: list(client.get_observations("run")),
        ):
            assert ask(through) == ask(direct)


@pytest.mark.parametrize(
    ("lacks", "code"),
    [
        ("certificate", "UNAVAILABLE"),
        ("certificate by an authority they know", "UNAVAILABLE"),
        ("authority that they have theirs from", "UNAVAILABLE"),
        ("TLS", "UNAVAILABLE"),
        ("token", "UNAUTHENTICATED"),
    ],
)
def test_who_lacks_something_is_not_let_in(
    secured: Secured, authority: trustme.CA, lacks: str, code: str
) -> None:
    options: dict[str, Any] = {}
    match lacks:
        case "certificate":
            options = dict.fromkeys(("upstream_cert", "upstream_key"))
        case "certificate by an authority they know":
            secured.ours.issue(trustme.CA(), trusts=authority)
        case "authority that they have theirs from":
            secured.ours.issue(authority, trusts=trustme.CA())
        case "TLS":
            options = dict.fromkeys(("upstream_ca", "upstream_cert", "upstream_key"))
        case "token":
            options = {"upstream_token_file": None}
    with secured.relayed(**options) as (_, client), pytest.raises(PathwatchError) as refused:
        client.list_runs()
    assert refused.value.code is grpc.StatusCode[code]


def test_a_name_is_looked_up_anew_and_all_its_addresses_are_tried(
    secured: Secured, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ["127.0.0.2"]  # where nobody listens
    system = socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **named: Any) -> Any:
        addresses = found if host == NAME else [host]
        return [entry for address in addresses for entry in system(address, *rest, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with secured.relayed(upstream=f"dns:///{NAME}:{secured.port}") as (relay, client):
        with pytest.raises(PathwatchError) as refused:
            client.list_runs()
        assert refused.value.code is grpc.StatusCode.UNAVAILABLE
        found.append("127.0.0.1")
        for number in range(10):  # each run asks the addresses in an order of its own, drawn by the port
            client.create_run(f"run-{number}", CONFIG)
            HandRank(f"run-{number}", 0, 1).send(relay.grpc_address, [make_batch(0), Watermark(step=0)])


def test_files_are_read_anew_for_the_next_connection(secured: Secured, make_batch: MakeBatch) -> None:
    new = trustme.CA()
    rank = HandRank("run", 0, 1)
    with ChaosProxy(secured.server.grpc_address) as network:
        port = network.address.rpartition(":")[2]
        with secured.relayed(upstream=f"dns:///localhost:{port}") as (relay, client):
            client.create_run("run", CONFIG)
            rank.send(relay.grpc_address, [make_batch(0)])
            secured.theirs.issue(new, trusts=new, names=NAMES)
            secured.ours.issue(new, trusts=new)
            network.cut()
            # The first to come may find the old connection broken.
            rank.insist(relay.grpc_address, [Watermark(step=0)], lambda sequence: None)
            assert client.get_run("run").name == "run"
