"""Options come from the command line, the environment and a YAML file, in this order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

OUTSIDE = "0.0.0.0:50051"  # refused in plaintext, so that the error tells which address was taken


@pytest.fixture
def check(command: Callable[..., Result], tmp_path: Path) -> Callable[..., str]:
    """`serve --check` with options and environment; what it says."""

    def run(*options: object, config: str | None = None, **environment: str) -> str:
        if config is not None:
            path = tmp_path / "pathwatch.yaml"
            path.write_text(config)
            options = (*options, "--config", path)
        result = command("serve", "--check", "--data", tmp_path / "data", *options, **environment)
        return result.stdout + result.stderr

    return run


def test_the_defaults_are_valid(check: Callable[..., str]) -> None:
    assert check().startswith("the configuration is valid\n")


def test_the_environment(check: Callable[..., str]) -> None:
    assert f"listen: {OUTSIDE}" in check(PATHWATCH_LISTEN=OUTSIDE)
    assert check(PATHWATCH_LISTEN=OUTSIDE, PATHWATCH_INSECURE="1").startswith("the configuration is valid\n")


def test_the_command_line_wins_over_the_environment(check: Callable[..., str]) -> None:
    assert check("--listen", "127.0.0.1:1", PATHWATCH_LISTEN=OUTSIDE).startswith(
        "the configuration is valid\n"
    )


@pytest.mark.parametrize(
    "config", [f"listen: {OUTSIDE}", f"serve:\n  listen: {OUTSIDE}\ngate:\n  timeout: 5"]
)
def test_the_file(check: Callable[..., str], config: str) -> None:
    assert f"listen: {OUTSIDE}" in check(config=config)
    assert check(config=config, PATHWATCH_LISTEN="127.0.0.1:1").startswith("the configuration is valid\n")
    assert check("--listen", "127.0.0.1:1", config=config).startswith("the configuration is valid\n")


def test_the_file_may_be_named_in_the_environment(check: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(f"listen: {OUTSIDE}\ninsecure: true\n")
    assert check(PATHWATCH_CONFIG=str(path)).startswith("the configuration is valid\n")
    path.write_text(f"listen: {OUTSIDE}\n")
    assert f"listen: {OUTSIDE}" in check(PATHWATCH_CONFIG=str(path))


@pytest.mark.parametrize("spelled", ["tls-client-ca", "tls_client_ca"])
def test_dashes_and_underscores_are_the_same(check: Callable[..., str], spelled: str) -> None:
    assert "--tls-client-ca needs" in check(config=f"{spelled}: ca.pem")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("listn: 127.0.0.1:1", "`serve` has no option listn; it has data, listen,"),
        ("- listen", "wanted a mapping of options to values"),
        ("serve: 3", "wanted a mapping of options to values"),
        ("listen: [", "not readable as YAML"),
    ],
)
def test_a_wrong_file_is_refused(check: Callable[..., str], config: str, says: str) -> None:
    said = check(config=config)
    assert says in said
    assert said.count("\n") == 1


def test_limits_come_from_everywhere_name_by_name(check: Callable[..., str]) -> None:
    file = "limits: {runs: 3, streams: 7}"
    assert "limits.runs: 1000 runs" in check()
    assert "limits.runs: 3 runs" in check(config=file)
    assert "limits.runs: 3 runs" in check(config="serve:\n  limits:\n    runs: 3")
    said = check("--limit", "runs=5", "--limit", "message_bytes=2MiB", config=file)
    assert "limits.runs: 5 runs" in said
    assert "limits.streams: 7 calls" in said
    assert "limits.message_bytes: 2097152 bytes" in said
    said = check(config=file, PATHWATCH_LIMIT="runs=6 calls=9")
    assert ("limits.runs: 6 runs" in said, "limits.calls: 9 calls" in said) == (True, True)
    assert "limits.streams: 7 calls" in said
    assert "limits.runs: 5 runs" in check("--limit", "runs=5", PATHWATCH_LIMIT="runs=6")


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("runz=1", "limit 'runz' is unknown; there are connections, calls,"),
        ("runs", "limit 'runs' is not NAME=VALUE"),
        ("runs=many", "limit runs: 'many' is not a number of runs"),
        ("runs=1KiB", "limit runs: '1KiB' is not a number of runs"),
        ("runs=-1", "limit runs: '-1' is not a number of runs"),
        ("runs=0", "limits.runs: must be at least 1"),
        ("message_bytes=1GiB", "limits.message_bytes: is more than unacked_bytes_per_stream, 67108864"),
    ],
)
def test_a_wrong_limit_is_refused(check: Callable[..., str], limit: str, says: str) -> None:
    said = check("--limit", limit)
    assert says in said
    assert said.count("\n") == 1


def test_limits_in_the_file_are_a_mapping(check: Callable[..., str]) -> None:
    assert "`limits` wants a mapping of names to values" in check(config="limits: 5")
