"""OpenBLAS has one thread in every command that starts a server: it is told before NumPy is imported."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = """
import os, sys

class Told:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            print("told", os.environ.get("OPENBLAS_NUM_THREADS"), flush=True)

sys.meta_path.insert(0, Told())
import runpy
runpy.run_module("pathwatch.server.cli", run_name="__main__")
"""


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A server does not start on it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        yield bound.getsockname()[1]


def told(arguments: list[str], **environment: str) -> list[str]:
    """What OpenBLAS is told when NumPy is imported; the command fails afterwards."""
    mine = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env=mine | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode != 0
    return [line for line in result.stdout.splitlines() if line.startswith("told")]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["replay"], ["report", "--out", "out"]], ids=lambda words: words[0])
def test_a_server_of_the_commands_own(arguments: list[str], tmp_path: Path) -> None:
    assert told([*arguments, str(tmp_path / "missing.npz")]) == ["told 1"]


@pytest.mark.slow
def test_the_sidecar(taken_port: int, tmp_path: Path) -> None:
    serve = ["serve", "--data", str(tmp_path / "data"), "--listen", f"127.0.0.1:{taken_port}"]
    assert told(serve) == ["told 1"]


def test_a_users_own_choice_stands(tmp_path: Path) -> None:
    assert told(["replay", str(tmp_path / "missing.npz")], OPENBLAS_NUM_THREADS="2") == ["told 2"]
