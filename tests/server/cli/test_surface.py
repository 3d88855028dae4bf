"""The commands and their options are a promise: a change here is a change for scripts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import click
import pytest
from click.testing import Result

from pathwatch.server.cli.root import COMMANDS, pathwatch

CONNECTION = [
    *["--server", "--tls", "--tls-ca", "--tls-cert", "--tls-key"],
    *["--token", "--token-file", "--insecure"],
]
SURFACE = {
    "serve": [
        *["--data", "--listen", "--http", "--store"],
        *["--redis-password", "--redis-password-file", "--redis-sentinel-password-file"],
        *["--redis-ca", "--redis-cert", "--redis-key"],
        *["--redis-wait-replicas", "--redis-timeout-seconds", "--shard", "--lease-seconds"],
        *["--upstream", "--upstream-ca", "--upstream-cert", "--upstream-key"],
        *["--upstream-token-file", "--upstream-insecure"],
        "--snapshot-minutes",
        *["--tls-cert", "--tls-key", "--tls-client-ca", "--http-tls", "--tokens", "--http-tokens"],
        *[
            "--audit-log",
            "--webhooks",
            "--public-url",
            "--max-connection-age",
            "--finished-series-seconds",
            "--otlp-endpoint",
            "--otlp-interval-seconds",
            "--insecure",
            "--limit",
            "--log-format",
            "--log-level",
            "--check",
            "--config",
        ],
    ],
    "fsck": ["FOLDER", "--restore", "--json", "--config"],
    "token": ["NAME", "--scope", "--run", "--expires", "--out", "--config"],
    "webhooks": ["ACTION", "FILE", "--name", "--config"],
    "monitoring": [
        *["--out", "--target", "--tls", "--tls-ca", "--token-file", "--prometheus", "--runbooks", "--config"],
    ],
    "demo": ["--out", "--workers", "--seed", "--steps", "--config"],
    "replay": ["TRACE", "--run", "--keep-observations", *CONNECTION, "--json", "--config"],
    "runs": [*CONNECTION, "--json", "--config"],
    "signal": ["RUN", *CONNECTION, "--json", "--config"],
    "watch": ["RUN", *CONNECTION, "--json", "--config"],
    "gate": ["RUN", "--until", "--group", "--timeout", *CONNECTION, "--json", "--config"],
    "finish": ["RUN", *CONNECTION, "--json", "--config"],
    "checkpoints": ["RUN", "--group", "--limit", *CONNECTION, "--json", "--config"],
    "cohorts": [
        *["SOURCE", "--group", "--epsilon", "--delta", "--cohorts", "--every", "--out"],
        *[*CONNECTION, "--json", "--config"],
    ],
    "bound": [
        *["SOURCE", "--group", "--ridge", "--noise", "--every", "--csv", "--out"],
        *[*CONNECTION, "--json", "--config"],
    ],
    "correlate": [
        *["SOURCE", "--scores", "--validation", "--average", "--memorized-at", "--cohorts"],
        *["--train-texts", "--test-texts", "--csv", *CONNECTION, "--json", "--config"],
    ],
    "export": ["RUN", "--out", "--group", "--after-step", *CONNECTION, "--config"],
    "report": ["SOURCE", "--out", "--labels", "--scores", *CONNECTION, "--config"],
}


def test_the_commands_are_these() -> None:
    assert list(COMMANDS) == list(SURFACE)


@pytest.mark.parametrize("name", SURFACE)
def test_the_options_are_these(name: str) -> None:
    command = pathwatch.get_command(click.Context(pathwatch), name)
    assert command is not None
    assert [
        param.opts[0] if isinstance(param, click.Option) else str(param.name).upper()
        for param in command.params
    ] == SURFACE[name]


def test_help_names_every_command(command: Callable[..., Result]) -> None:
    for asked in (["--help"], ["-h"], []):
        result = command(*asked)
        assert result.exit_code == 0
        assert all(name in result.stdout for name in SURFACE)


@pytest.mark.parametrize("name", SURFACE)
def test_help_of_a_command_is_its_docstring(command: Callable[..., Result], name: str) -> None:
    result = command(name, "--help")
    assert result.exit_code == 0
    assert f"Usage: pathwatch {name}" in result.stdout


def test_help_answers_without_loading_what_it_does_not_need() -> None:
    """What makes a command line slow to answer: gRPC, NumPy, matplotlib, the server."""
    code = (
        "import sys; from pathwatch.server.cli.root import pathwatch\n"
        "try: pathwatch(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stderr.split())
    assert "click" in loaded
    assert not loaded & {
        "grpc",
        "numpy",
        "rich",
        "yaml",
        "matplotlib",
        "torch",
        "pathwatch.client",
        "pathwatch.server.app",
    }


def test_without_the_extra_one_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['click'] = None; from pathwatch.server.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "the command line needs: pip install 'pathwatch[cli]'\n"


def test_a_command_without_its_extra_says_what_to_install(
    command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, trace_file: Callable[..., object]
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "rapidfuzz" else found(name)
    )
    result = command("replay", trace_file())
    assert result.exit_code == 2
    assert result.stderr == (
        "pathwatch: rapidfuzz is not installed; this command needs: pip install 'pathwatch[server]'\n"
    )


def test_the_version_is_printed(command: Callable[..., Result]) -> None:
    assert command("--version").stdout.startswith("pathwatch, version 0.")
