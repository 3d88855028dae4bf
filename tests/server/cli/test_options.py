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
    assert check() == "the configuration is valid\n"


def test_the_environment(check: Callable[..., str]) -> None:
    assert f"listen: {OUTSIDE}" in check(PATHWATCH_LISTEN=OUTSIDE)
    assert check(PATHWATCH_LISTEN=OUTSIDE, PATHWATCH_INSECURE="1") == "the configuration is valid\n"


def test_the_command_line_wins_over_the_environment(check: Callable[..., str]) -> None:
    assert check("--listen", "127.0.0.1:1", PATHWATCH_LISTEN=OUTSIDE) == "the configuration is valid\n"


@pytest.mark.parametrize(
    "config", [f"listen: {OUTSIDE}", f"serve:\n  listen: {OUTSIDE}\ngate:\n  timeout: 5"]
)
def test_the_file(check: Callable[..., str], config: str) -> None:
    assert f"listen: {OUTSIDE}" in check(config=config)
    assert check(config=config, PATHWATCH_LISTEN="127.0.0.1:1") == "the configuration is valid\n"
    assert check("--listen", "127.0.0.1:1", config=config) == "the configuration is valid\n"


def test_the_file_may_be_named_in_the_environment(check: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(f"listen: {OUTSIDE}\ninsecure: true\n")
    assert check(PATHWATCH_CONFIG=str(path)) == "the configuration is valid\n"
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
