"""A relay's connections, over TLS."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
import trustme
from standing_in import StandIn, serving

from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import RelayConfig
from pathwatch.server.relay import passing
from pathwatch.server.relay.servers import Servers
from pathwatch.v1 import run_pb2, run_pb2_grpc


@pytest.mark.slow
@pytest.mark.parametrize(
    ("certified", "upstream", "is_served"),
    [
        ("localhost", "dns:///localhost:{port}", True),
        ("elsewhere", "dns:///localhost:{port}", False),
        ("localhost", "127.0.0.1:{port}", False),
        ("127.0.0.1", "127.0.0.1:{port}", True),
        # An owner's certificate is for its own address, whatever name others were found by.
        ("127.0.0.1", "127.0.0.1:{names}", True),
        ("localhost", "127.0.0.1:{names}", False),
    ],
)
def test_servers_show_certificates_for_the_name_they_were_found_by(
    certified: str, upstream: str, is_served: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing, "_PATIENCE_SECONDS", 2.0)  # far less than the caller's
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    names = StandIn()
    with (
        serving(StandIn(), credentials=credentials(authority, certified)) as there,
        serving(names, credentials=credentials(authority, "127.0.0.1")) as elsewhere,
    ):
        names.owner = there
        ports = {"port": there.rpartition(":")[2], "names": elsewhere.rpartition(":")[2]}
        config = RelayConfig(upstream=upstream.format(**ports), upstream_ca=tmp_path / "ca.pem")
        with BackgroundServer(config) as relay, grpc.insecure_channel(relay.grpc_address) as channel:
            runs, request = run_pb2_grpc.RunServiceStub(channel), run_pb2.GetRunRequest(name="run")
            if is_served:
                assert runs.GetRun(request, timeout=60).run.name == "run"
            else:
                with pytest.raises(grpc.RpcError) as refused:
                    runs.GetRun(request, timeout=60)
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_one_connection_for_each_address_and_name() -> None:
    async def main() -> None:
        servers = Servers(RelayConfig(upstream="dns:///localhost:50051"))
        own = servers.enter("127.0.0.1:50051", None)
        named = servers.enter("127.0.0.1:50051", "localhost:50051")
        assert own is not named
        assert servers.enter("127.0.0.1:50051", None) is own
        assert servers.enter("127.0.0.1:50051", "localhost:50051") is named
        own.failed = True
        assert servers.enter("127.0.0.1:50051", None) is not own
        assert servers.enter("127.0.0.1:50051", "localhost:50051") is named
        for server in (own, named):
            await server.channel.close(None)
        await servers.close()

    asyncio.run(main())


def credentials(authority: trustme.CA, name: str) -> grpc.ServerCredentials:
    """Of a server with that name or address."""
    certificate = authority.issue_cert(name)
    chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
    return grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
