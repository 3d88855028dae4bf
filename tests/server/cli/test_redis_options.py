"""A store in Redis, as the command line takes it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from pathwatch.server.cli.redis_options import to_redis_options


def test_options_are_checked_without_a_word_of_the_password(
    command: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ("serve", "--data", tmp_path, "--store", "redis://me@cache:7000", "--check")
    monkeypatch.setenv("PATHWATCH_REDIS_PASSWORD", "secret")
    assert command(*told, "--redis-wait-replicas", 2).exit_code == 0
    refused = command(*told, "--redis-timeout-seconds", 0)
    assert refused.exit_code != 0
    assert "redis_timeout_seconds: must be more than 0" in refused.stderr
    monkeypatch.setenv("PATHWATCH_STORE", "redis://me:other-secret@cache")
    twice = command("serve", "--data", tmp_path, "--check")
    assert "redis_password: the URL of the store has a password too" in twice.stderr
    assert "secret" not in refused.output + twice.output


def test_without_the_extra_a_check_says_what_to_install(
    command: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "redis" else found(name))
    told = ("serve", "--data", tmp_path, "--store", "redis://127.0.0.1:1")
    for way in ((), ("--check",)):
        refused = command(*told, *way)
        assert refused.exit_code == 2
        assert "redis is not installed" in refused.stderr
        assert "pip install 'pathwatch[redis]'" in refused.stderr
    assert command("serve", "--data", tmp_path, "--check").exit_code == 0


def test_what_was_given_is_what_the_server_gets(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    options = to_redis_options(
        redis_password=None,
        redis_password_file=file,
        redis_sentinel_password_file=file,
        redis_ca=tmp_path / "ca",
        redis_cert=tmp_path / "cert",
        redis_key=tmp_path / "key",
        redis_wait_replicas=2,
        redis_timeout_seconds=3.5,
    )
    assert options.password is not None
    assert options.sentinel_password is not None
    assert (options.password.read(), options.sentinel_password.read()) == ("secret", "secret")
    files = (options.ca, options.cert, options.key)
    assert files == tuple(tmp_path / name for name in ("ca", "cert", "key"))
    assert (options.wait_replicas, options.timeout_seconds) == (2, 3.5)


def test_fsck_of_a_redis_is_refused(command: Callable[..., Result]) -> None:
    refused = command("fsck", "redis://me:secret@cache")
    assert refused.exit_code != 0
    assert "fsck checks data folders; Redis checks its own files" in refused.stderr
    assert "secret" not in refused.output
