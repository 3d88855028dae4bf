"""Whoever reads a long history hears that it is not the whole one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from pathwatch.client import Client
from pathwatch.server.app import BackgroundServer
from pathwatch.server.cli.told_history import told_history
from pathwatch.server.config import Limits, ServerConfig


@pytest.mark.slow
@pytest.mark.parametrize(("windows", "said"), [(60, ""), (45, "one window in 2 is used\n")])
def test_a_thinned_history_is_called_so(
    windows: int,
    said: str,
    command: Callable[..., Result],
    trace_file: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trace = trace_file("long", steps=20)
    limits = replace(Limits(), answer_rows=windows)
    with BackgroundServer(ServerConfig(data=tmp_path / "data", limits=limits)) as server:
        played = command("replay", trace, "--server", server.grpc_address, "--json")
        assert played.exit_code == 0
        run = json.loads(played.stdout.splitlines()[-1])["run"]
        capsys.readouterr()
        with Client(server.grpc_address) as client:
            history = told_history(client.get_run(run), client)
    assert capsys.readouterr().err.endswith(said)
    steps_T = history.groups[0].steps_T
    assert (len(steps_T) < 20) is bool(said)
    assert np.isin([0, 475], steps_T).all()
