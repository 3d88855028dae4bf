"""`pathwatch token`, and that no command lets a token out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from pathwatch.client import Client, Credentials, PathwatchError
from pathwatch.server.access.tokens import Scope, read_tokens
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig


def test_what_it_makes_opens_the_door(command: Callable[..., Result], tmp_path: Path) -> None:
    """Entries appended one by one make the file of `serve --tokens`; the secrets are in none of them."""
    file, secrets = tmp_path / "tokens.yaml", []
    for name, more in (("job", ["--scope", "ingest", "--run", "abc-*"]), ("people", ["--scope", "read"])):
        out = tmp_path / f"{name}.token"
        done = command("token", name, *more, "--out", out)
        assert (done.exit_code, done.stderr) == (0, "")
        assert out.stat().st_mode & 0o777 == 0o600
        secrets.append(out.read_text().strip())
        with file.open("a") as tokens:
            tokens.write(done.stdout)
    assert not any(secret in file.read_text() for secret in secrets)
    job, people = (read_tokens(file).find(secret) for secret in secrets)
    assert job is not None
    assert people is not None
    assert (job.name, job.scopes, job.runs) == ("job", {Scope.INGEST}, ("abc-*",))
    assert (people.name, people.is_for_all_runs) == ("people", True)
    config = ServerConfig(data=tmp_path / "data", tokens=file)
    with BackgroundServer(config) as server:
        asked = command("runs", "--server", server.grpc_address, "--token-file", tmp_path / "people.token")
        assert asked.exit_code == 0, asked.stderr
        asked = command("runs", "--server", server.grpc_address, PATHWATCH_TOKEN=secrets[1])
        assert asked.exit_code == 0, asked.stderr
        asked = command("runs", "--server", server.grpc_address, PATHWATCH_TOKEN=secrets[0])
        assert asked.exit_code == 2
        assert "needs the scope read; token 'job' has ingest" in asked.stderr
        asked = command("runs", "--server", server.grpc_address)
        assert "wants a bearer token" in asked.stderr
        assert "PATHWATCH_TOKEN" in asked.stderr


def test_without_a_file_the_secret_is_shown_once_beside_the_entry(
    command: Callable[..., Result], tmp_path: Path
) -> None:
    done = command("token", "ops", "--scope", "read", "--scope", "control", "--expires", "2031-05-01")
    (line,) = done.stderr.splitlines()
    secret = line.rpartition(" ")[2]
    assert secret.startswith("pw_")
    assert secret not in done.stdout
    path = tmp_path / "tokens.yaml"
    path.write_text(done.stdout)
    (token,) = read_tokens(path).tokens
    assert read_tokens(path).find(secret) == token
    assert token.scopes == {Scope.READ, Scope.CONTROL}
    assert str(token.expires) == "2031-05-01 00:00:00+00:00"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["job"], "Missing option '--scope'"),
        (["job", "--scope", "admin"], "'admin' is not one of"),
        (["two words", "--scope", "read"], "name must be 1 to 64"),
        (["job", "--scope", "read", "--expires", "soon"], "'soon' does not match the format"),
        (["job", "--scope", "read", "--run", ""], "runs must be a list of names"),
    ],
)
def test_wrong_usage(command: Callable[..., Result], arguments: list[str], says: str) -> None:
    done = command("token", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr
    assert "pw_" not in done.stderr


def test_it_never_overwrites(command: Callable[..., Result], tmp_path: Path) -> None:
    out = tmp_path / "token"
    out.write_text("another")
    done = command("token", "job", "--scope", "read", "--out", out)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"cannot write {out}: File exists" in done.stderr
    assert out.read_text() == "another"


def test_a_token_on_the_command_line_is_warned_of(command: Callable[..., Result]) -> None:
    """Other users of the machine see it in the process list."""
    warned = command("runs", "--server", "127.0.0.1:1", "--token", "pw_s3cret")
    assert "a token on the command line can be read by every user of this machine" in warned.stderr
    quiet = command("runs", "--server", "127.0.0.1:1", PATHWATCH_TOKEN="pw_s3cret")  # noqa: S106
    assert "command line" not in quiet.stderr
    assert "s3cret" not in warned.stderr + quiet.stderr


@pytest.mark.parametrize("content", ["token: pw_s3cret", "runs:\n  token: pw_s3cret", "token: pw_s3cret: ["])
def test_a_token_in_a_configuration_file_is_refused(
    command: Callable[..., Result], tmp_path: Path, content: str
) -> None:
    path = tmp_path / "pathwatch.yaml"
    path.write_text(content)
    done = command("runs", "--config", path)
    assert done.exit_code == 2
    assert "holds a token" in done.stderr or "line 1: not readable as YAML" in done.stderr
    assert "s3cret" not in done.stderr


@pytest.mark.parametrize("name", ["runs", "signal", "watch", "gate", "replay", "export", "report"])
def test_help_shows_no_token(command: Callable[..., Result], name: str) -> None:
    done = command(name, "--help", PATHWATCH_TOKEN="pw_s3cret")  # noqa: S106
    assert "--token" in done.stdout
    assert "s3cret" not in done.stdout + done.stderr


@pytest.fixture
def talkative(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


def test_neither_side_logs_a_token(
    command: Callable[..., Result],
    tmp_path: Path,
    talkative: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With everything logged that there is, for tokens that are right, wrong, and of the wrong scope."""
    out, file = tmp_path / "job.token", tmp_path / "tokens.yaml"
    file.write_text(command("token", "job", "--scope", "ingest", "--out", out).stdout)
    secret = out.read_text().strip()
    with BackgroundServer(ServerConfig(data=tmp_path / "data", tokens=file)) as server:
        for token in (secret, secret[:-1]):
            with Client(server.grpc_address, credentials=Credentials(token=token)) as client:
                with pytest.raises(PathwatchError) as raised:
                    client.list_runs()
                assert secret[:-1] not in repr(raised.value) + repr(raised.value.__cause__)
    captured = capfd.readouterr()
    logged = [vars(record) | {"text": record.getMessage()} for record in talkative.records]
    assert {entry.get("outcome") for entry in logged} >= {"PERMISSION_DENIED", "UNAUTHENTICATED"}
    assert secret[:-1] not in repr(logged) + talkative.text + captured.out + captured.err
