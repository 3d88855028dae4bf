"""Whatever is wrong is said in one line on stderr, with exit code 2."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address of this machine where nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def one_line(result: Result) -> str:
    """The error; fails unless it is one line, with exit code 2 and nothing on stdout."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("pathwatch: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("pathwatch: ").strip()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["replay"], "Missing argument 'TRACE'"),
        (["signal"], "Missing argument 'RUN'"),
        (["gate", "pair"], "Missing option '--until'"),
        (["gate", "pair", "--until", "bored"], "'bored' is not one of 'generalized', 'stop'"),
        (["gate", "pair", "--until", "stop", "--group", "math"], "--group goes with --until generalized"),
        (["gate", "pair", "--until", "stop", "--timeout", "soon"], "'soon' is not a valid float"),
        (["serve"], "Missing option '--data'"),
        (["report", "pair"], "Missing option '--out'"),
        (["demo", "--workers", "0"], "0 is not in the range x>=1"),
        (["dance"], "No such command 'dance'"),
        (["runs", "--loud"], "No such option"),
        (["runs", "--server", "somewhere"], "'somewhere' is not HOST:PORT"),
        (["runs", "--server", "192.0.2.1:50051"], "refusing plaintext to 192.0.2.1:50051"),
        (["runs", "--tls-cert", __file__], "cert and key belong together"),
        (["replay", "/no/such/trace.npz"], "/no/such/trace.npz: no such file"),
        (["replay", __file__], "not a readable .npz file"),
    ],
)
def test_wrong_usage(command: Callable[..., Result], arguments: list[str], says: str) -> None:
    assert says in one_line(command(*arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        ["runs"],
        ["signal", "pair"],
        ["watch", "pair"],
        ["gate", "pair", "--until", "stop"],
        ["checkpoints", "pair"],
    ],
)
def test_an_unreachable_server(command: Callable[..., Result], nowhere: str, arguments: list[str]) -> None:
    assert f"no pathwatch server at {nowhere}" in one_line(command(*arguments, "--server", nowhere))


def test_an_unreachable_server_while_replaying(
    command: Callable[..., Result], nowhere: str, trace_file: Callable[..., Path]
) -> None:
    assert f"no pathwatch server at {nowhere}" in one_line(
        command("replay", trace_file(), "--server", nowhere)
    )


@pytest.mark.parametrize(
    "arguments",
    [["signal"], ["watch"], ["gate", "--until", "stop"], ["checkpoints"], ["report", "--out", "out"]],
)
def test_an_unknown_run(command: Callable[..., Result], server: Any, arguments: list[str]) -> None:
    said = one_line(command(*arguments, "nobody", "--server", server.grpc_address))
    assert "nobody" in said


def test_a_broken_trace(command: Callable[..., Result], trace_file: Callable[..., Path]) -> None:
    path = trace_file(steps=3)
    path.write_bytes(path.read_bytes()[:-50])
    assert f"{path}: not a readable .npz file" in one_line(command("replay", path))


def test_labels_that_are_none(command: Callable[..., Result], server: Any, tmp_path: Path) -> None:
    said = one_line(
        command("report", "pair", "--out", tmp_path, "--labels", __file__, "--server", server.grpc_address)
    )
    assert f"{__file__}: not a readable .npz file" in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--listen", "0.0.0.0:0"], "would carry plaintext"),
        (["--listen", "nonsense"], "'nonsense' is not HOST:PORT"),
        (["--store", "redis:/cache"], "store: this is no URL of a Redis: its scheme is none of redis://"),
        (["--redis-ca", __file__], "redis_…: only with the URL of a Redis as store"),
        (
            ["--store", "redis://h", "--redis-password", "a", "--redis-password-file", __file__],
            "--redis-password and --redis-password-file: give one of them",
        ),
        (["--tls-cert", __file__], "--tls-cert and --tls-key belong together"),
        (["--tls-client-ca", __file__], "--tls-client-ca needs --tls-cert and --tls-key"),
        (["--tls-cert", __file__, "--tls-key", __file__], "is not a PEM file"),
    ],
)
def test_a_server_that_cannot_start(
    command: Callable[..., Result], tmp_path: Path, options: list[str], says: str
) -> None:
    for check in ([], ["--check"]):
        assert says in one_line(command("serve", "--data", tmp_path / "data", *options, *check))


def test_a_taken_port(nowhere: str, tmp_path: Path) -> None:
    """In a process of its own: gRPC writes past Python's streams."""
    command = [sys.executable, "-m", "pathwatch.server.cli", "serve", "--data", tmp_path / "data"]
    done = subprocess.run([*command, "--listen", nowhere], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == f"pathwatch: cannot listen on {nowhere}: Address already in use\n"
