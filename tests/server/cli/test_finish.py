"""`pathwatch finish`, against a real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result
from serving import CONFIG, train

from pathwatch.client import Client, RoutingStream
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig
from pathwatch.v1 import run_pb2


def test_a_run_whose_job_has_gone_is_ended(tmp_path: Path, command: Callable[..., Result]) -> None:
    with BackgroundServer(ServerConfig(data=tmp_path)) as server:
        stream = RoutingStream(server.grpc_address, run="gone", config=CONFIG)
        train(stream, range(3))
        assert stream.flush(60)
        stream.close()
        said = command("finish", "gone", "--server", server.grpc_address)
        assert (said.exit_code, said.stdout) == (0, "gone is finished at step 2\n")
        again = command("finish", "gone", "--json", "--server", server.grpc_address)
        assert json.loads(again.stdout)["state"] == "FINISHED"
        with Client(server.grpc_address) as client:
            assert client.get_run("gone").state == run_pb2.RUN_STATE_FINISHED
            assert {window.step for window in client.get_metrics("gone").windows} == {0, 1, 2}
        missing = command("finish", "nobody", "--server", server.grpc_address)
        assert missing.exit_code == 2
        assert "nobody" in missing.stderr
