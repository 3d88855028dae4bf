"""`serve --upstream`: what goes with it, what does not, and that it then needs no folder."""

from __future__ import annotations

import os
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from relaying import RelayProcess

from pathwatch.client import Client
from pathwatch.server.app import BackgroundServer

UPSTREAM = ("serve", "--check", "--upstream", "127.0.0.1:50051")
PEM = Path(__file__).parents[2] / "data" / "tls" / "ca.pem"


@pytest.mark.parametrize(
    "server",
    ["127.0.0.1:50051", "a.example:1,b.example:2", "dns:///pathwatch.example:50051", "file:///etc/pathwatch"],
)
def test_a_relay_needs_no_folder(command: Callable[..., Result], server: str) -> None:
    result = command("serve", "--check", "--upstream", server)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("the configuration is valid\n")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--data", "there"], "--data: not with --upstream"),
        (["--webhooks", "there", "--store", "sqlite"], "--store, --webhooks: not with --upstream"),
        (["--shard", "here:1"], "--shard: not with --upstream"),
        (["--redis-timeout-seconds", "2"], "--redis-timeout-seconds: not with --upstream"),
        (["--upstream-cert", PEM], "upstream_cert and upstream_key belong together"),
        (["--upstream-ca", PEM, "--upstream-insecure"], "upstream_insecure: contradicts upstream_ca"),
        (["--upstream-ca", "/no/such"], "upstream_ca: cannot read /no/such: No such file or directory"),
        (["--upstream-token-file", os.devnull], f"upstream_token_file: {os.devnull} is empty"),
        (["--listen", "0.0.0.0:1"], "listen: 0.0.0.0:1 is reachable from other machines"),
    ],
)
def test_what_does_not_go_with_it(command: Callable[..., Result], options: list[object], says: str) -> None:
    result = command(*UPSTREAM, *options)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("server", ["somewhere", "dns:///somewhere", "file://relative", "a:1,b"])
def test_a_server_of_no_known_form(command: Callable[..., Result], server: str) -> None:
    result = command("serve", "--check", "--upstream", server)
    assert result.exit_code == 2
    assert result.stderr.startswith("pathwatch: --upstream: ")


def test_options_of_a_relay_alone_want_one(command: Callable[..., Result], tmp_path: Path) -> None:
    result = command("serve", "--check", "--data", tmp_path, "--upstream-insecure", "--upstream-ca", PEM)
    assert result.exit_code == 2
    assert result.stderr == "pathwatch: --upstream-ca, --upstream-insecure: only with --upstream\n"


@pytest.mark.slow
def test_it_serves_from_another_process(server: BackgroundServer) -> None:
    with RelayProcess(server.grpc_address) as relay:
        with Client(relay.address) as through, Client(server.grpc_address) as direct:
            assert list(through.list_runs()) == list(direct.list_runs())
        with urllib.request.urlopen(f"http://{relay.http}/healthz", timeout=30) as page:
            assert page.read() == b"ok\n"
        with urllib.request.urlopen(f"http://{relay.http}/metrics", timeout=30) as page:
            scraped = page.read().decode()
        assert 'pathwatch_relay_observations_total{result="cut"} 0.0' in scraped
        assert 'grpc_server_handled_total{grpc_code="OK",grpc_method="ListRuns"' in scraped
        assert relay.end(signal.SIGTERM) == 0
