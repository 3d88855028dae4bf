"""The server as a process: starting, serving with TLS, stopping, and what it refuses."""

from __future__ import annotations

import errno
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest

from pathwatch.client import Client, Credentials, PathwatchError
from pathwatch.server.app import BackgroundServer, StartError
from pathwatch.server.config import ServerConfig, TlsFiles
from pathwatch.v1 import run_pb2

TLS = Path(__file__).parents[1] / "data" / "tls"
CONFIG = run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4))

SERVE = """
import asyncio, sys
from pathlib import Path
from pathwatch.server.app import serve
from pathwatch.server.config import ServerConfig

def ready(addresses):
    print(f"grpc={addresses.grpc} http={addresses.http}", flush=True)

config = ServerConfig(data=Path(sys.argv[1]), listen="127.0.0.1:0", http="127.0.0.1:0")
sys.exit(asyncio.run(serve(config, ready=ready)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_process_serves_until_it_is_told_to_stop(tmp_path: Path, stop: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        addresses = dict(word.split("=") for word in process.stdout.readline().split())
        with Client(addresses["grpc"]) as client:
            client.create_run("run", CONFIG)
        with urllib.request.urlopen(f"http://{addresses['http']}/healthz", timeout=30) as response:
            assert response.status == 200
        process.send_signal(stop)
        assert process.wait(30) == 0
    with BackgroundServer(ServerConfig(data=tmp_path)) as server, Client(server.grpc_address) as client:
        assert [run.name for run in client.list_runs()] == ["run"]


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_to_be_told_again_at_its_very_end_changes_nothing(tmp_path: Path, stop: signal.Signals) -> None:
    """All is drained and closed by then; an interpreter takes its time to end."""
    end = "print('over', flush=True); sys.stdin.read(); sys.exit(code)"
    slow = SERVE.replace("sys.exit", "code = ") + end
    with subprocess.Popen(
        [sys.executable, "-c", slow, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("grpc=")
        process.send_signal(stop)
        assert process.stdout.readline() == "over\n"
        process.send_signal(stop)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_the_server_never_imports_torch(tmp_path: Path) -> None:
    """Through a whole round, judged and scraped."""
    code = """
import json, sys
import numpy as np
from pathlib import Path
from urllib.request import urlopen
from pathwatch.client import Client, RoutingStream
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig
from pathwatch.v1 import run_pb2

with BackgroundServer(ServerConfig(data=Path(sys.argv[1]))) as server, Client(server.grpc_address) as client:
    client.create_run("run", run_pb2.RunConfig(topology=run_pb2.Topology(layers=2, experts=4)))
    stream = RoutingStream(server.grpc_address, run="run")
    weights = np.full((4, 2, 4), 0.25, np.float32)
    stream.observe(step=1, group="g", sample_ids=np.arange(4), weights=weights)
    stream.watermark(1)
    assert stream.flush(60)
    stream.close()
    assert client.finish_run("run").closed_step == 1
    urlopen(f"http://{server.http_address}/metrics").read()
print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert "rapidfuzz" in loaded
    assert not loaded & {"torch", "transformers", "deepspeed", "matplotlib", "jinja2", "scipy", "urllib3"}


def tls_config(data: Path, *, client_ca: bool = False) -> ServerConfig:
    files = TlsFiles(
        cert=TLS / "server.pem", key=TLS / "server.key", client_ca=TLS / "ca.pem" if client_ca else None
    )
    return ServerConfig(data=data, tls=files)


def test_tls(tmp_path: Path) -> None:
    with BackgroundServer(tls_config(tmp_path)) as server:
        with Client(server.grpc_address, credentials=Credentials(root_ca=TLS / "ca.pem")) as client:
            client.create_run("run", CONFIG)
        with Client(server.grpc_address, timeout=60) as plain, pytest.raises(PathwatchError) as error:
            plain.list_runs()
        assert error.value.code is grpc.StatusCode.UNAVAILABLE


def test_mutual_tls_knows_its_clients(tmp_path: Path) -> None:
    known = Credentials(root_ca=TLS / "ca.pem", cert=TLS / "client.pem", key=TLS / "client.key")
    unknown = Credentials(root_ca=TLS / "ca.pem")
    with BackgroundServer(tls_config(tmp_path, client_ca=True)) as server:
        with Client(server.grpc_address, credentials=known) as client:
            client.create_run("run", CONFIG)
        with (
            Client(server.grpc_address, credentials=unknown, timeout=60) as stranger,
            pytest.raises(PathwatchError) as error,
        ):
            stranger.list_runs()
        assert error.value.code is grpc.StatusCode.UNAVAILABLE


def start_error(config: ServerConfig, run: Any) -> str:
    with pytest.raises(StartError) as error:
        run(config)
    return str(error.value)


def serve_once(config: ServerConfig) -> None:
    """Through the same entrance as the command line."""
    import asyncio

    from pathwatch.server.app import serve

    asyncio.run(serve(config, ready=lambda _: pytest.fail("it started")))


def test_what_it_does_not_start_with(tmp_path: Path) -> None:
    free = {"listen": "127.0.0.1:0", "http": "127.0.0.1:0"}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config = ServerConfig(data=tmp_path, **(free | {"listen": address}))
        assert f"cannot listen on {address}: Address already in use" in start_error(config, serve_once)
        config = ServerConfig(data=tmp_path, **(free | {"http": address}))
        assert f"cannot listen on {address}: Address already in use" in start_error(config, serve_once)
    config = ServerConfig(data=tmp_path, listen="0.0.0.0:0", http="127.0.0.1:0")
    assert "--insecure" in start_error(config, serve_once)
    with BackgroundServer(ServerConfig(data=tmp_path)):
        config = ServerConfig(data=tmp_path, **free)
        assert "another pathwatch server" in start_error(config, serve_once)


def test_it_starts_on_all_addresses_where_there_is_no_ipv6(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC takes [::] for all there are."""
    system = socket.socket

    def without_ipv6(family: int = socket.AF_INET, *rest: Any, **named: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return system(family, *rest, **named)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    with BackgroundServer(ServerConfig(data=tmp_path, listen="[::]:0", insecure=True)) as server:
        port = server.grpc_address.rpartition(":")[2]
        with Client(f"127.0.0.1:{port}") as client:
            assert client.list_runs() == []


def test_a_background_server_tells_why_it_cannot_start(tmp_path: Path) -> None:
    with (
        BackgroundServer(ServerConfig(data=tmp_path)),
        pytest.raises(StartError, match="another pathwatch server"),
        BackgroundServer(ServerConfig(data=tmp_path)),
    ):
        pytest.fail("it started")
