"""The file of webhooks: what may stand in it, and what is said of what may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pathwatch.server.config import (
    Event,
    Format,
    ServerConfig,
    WebhooksError,
    check,
    read_webhooks,
    webhook_warnings,
)
from pathwatch.server.config.webhook_fields import NOTEWORTHY, PHASES
from pathwatch.server.phases.verdict import Phase

TLS = Path(__file__).parents[1] / "data" / "tls"
ENTRY = {"name": "hook", "format": "pathwatch", "url": "https://receiver.example/hook"}
SECRET = "0123456789abcdef-secret"  # noqa: S105


def write(tmp_path: Path, *entries: object) -> Path:
    path = tmp_path / "webhooks.yaml"
    path.write_text(yaml.safe_dump(list(entries)))
    return path


def problem(tmp_path: Path, *entries: object) -> str:
    path = write(tmp_path, *entries)
    with pytest.raises(WebhooksError) as error:
        read_webhooks(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert check(ServerConfig(data=tmp_path, webhooks=path)) == [f"webhooks: {text}"]
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


def test_the_phases_are_those_of_the_detectors() -> None:
    assert set(PHASES) == {phase.name for phase in Phase}
    assert set(NOTEWORTHY) < set(PHASES)


def test_what_is_left_out(tmp_path: Path) -> None:
    (hook,) = read_webhooks(write(tmp_path, ENTRY)).webhooks
    assert (hook.name, hook.format, hook.url.read()) == ("hook", Format.PATHWATCH, ENTRY["url"])
    assert hook.events == {Event.PHASE, Event.ACTION}
    assert (hook.runs, hook.groups, hook.phases) == (("*",), ("*",), frozenset(PHASES))
    assert (hook.timeout_seconds, hook.per_minute, hook.give_up_hours) == (10, 30, 24)
    (alerts,) = read_webhooks(write(tmp_path, ENTRY | {"format": "alertmanager"})).webhooks
    assert alerts.phases == frozenset(NOTEWORTHY)


def test_everything_there_is(tmp_path: Path) -> None:
    for name, content in (("url", ENTRY["url"]), ("key", SECRET), ("token", "Bearer x\n")):
        (tmp_path / name).write_text(content)
    entry = {
        "name": "A.b-c_1",
        "format": "pathwatch",
        "url_file": "url",
        "events": ["checkpoint"],
        "runs": ["a*", "b"],
        "groups": ["math"],
        "phases": ["GENERALIZED"],
        "secret_file": str(tmp_path / "key"),
        "headers": {"Authorization": {"file": "token"}, "X-Team": "training"},
        "timeout_seconds": 2.5,
        "rate": {"per_minute": 6},
        "give_up_hours": 1,
        "ca_file": str(TLS / "ca.pem"),
        "proxy": "http://user:word@proxy.example:3128",
    }
    table = read_webhooks(write(tmp_path, entry))
    (hook,) = table.webhooks
    assert hook.url.read() == ENTRY["url"]
    assert hook.secret is not None
    assert hook.secret.read() == SECRET
    assert [(name, value.read()) for name, value in hook.headers] == [
        ("Authorization", "Bearer x"),
        ("X-Team", "training"),
    ]
    assert hook.is_for("abc", "math")
    assert hook.is_for("b")
    assert not hook.is_for("c")
    assert not hook.is_for("b", "code")
    assert table.holds_secrets, "the proxy's password"
    assert {path.name for path in table.secret_files} == {"url", "key", "token"}
    assert check(ServerConfig(data=tmp_path, webhooks=write(tmp_path, entry))) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": ""}, "webhook 1: name must be 1 to 64 letters, digits, and . _ -, a letter or digit first"),
        ({"name": "../x"}, "webhook 1: name must be"),
        ({"name": 7}, "webhook 1: name must be"),
        ({"format": "teams"}, "webhook 'hook': format must be one of pathwatch, slack, alertmanager"),
        ({"format": ["slack"]}, "webhook 'hook': format must be"),
        ({"url": None}, "webhook 'hook': needs url or url_file"),
        ({"url": ""}, "webhook 'hook': url must be text, or in a file that is named"),
        ({"url": {"file": "x"}}, "webhook 'hook': url must be text; url_file names a file that holds it"),
        ({"url": "ftp://h/"}, "webhook 'hook': url must be http://HOST… or https://HOST…, in ASCII"),
        ({"url": "https:///x"}, "url must be http://HOST…"),
        ({"url": "https://h:0/"}, "url must be http://HOST…"),
        ({"url": "https://h:x/"}, "url must be http://HOST…"),
        ({"url": "https://h/a b"}, "url must be http://HOST…"),
        ({"url": "https://h/\u00e4"}, "url must be http://HOST…"),
        ({"url": "https://u:p@h/"}, "url must not hold a user or password; give headers"),
        ({"url": "https://h/#x"}, "url must not hold a #fragment"),
        ({"url_file": "x"}, "url and url_file are two of the same; give one"),
        ({"events": []}, "events must be a list of some of phase, action, checkpoint"),
        ({"events": ["stop"]}, "events must be a list of some of"),
        ({"events": "phase"}, "events must be a list of some of"),
        (
            {"format": "alertmanager", "events": ["checkpoint"]},
            "events must be a list of some of phase, action; a best checkpoint is no condition that ends",
        ),
        ({"runs": []}, "runs must be a list of names or globs; leave it out for all runs"),
        ({"groups": "math"}, "groups must be a list of names or globs; leave it out for all groups"),
        ({"phases": ["generalized"]}, "phases must be a list of some of UNKNOWN, LEARNING, MEMORIZED"),
        ({"secret": "short"}, "secret must have at least 16 characters: openssl rand -hex 32"),
        ({"secret": SECRET, "secret_file": "x"}, "secret and secret_file are two of the same"),
        ({"secret_file": "none"}, "cannot read none: No such file or directory"),
        ({"secret_file": "empty"}, "empty must hold 1 to 8192 bytes of text"),
        ({"secret_file": "binary"}, "binary holds no text"),
        ({"secret_file": "huge"}, "huge must hold 1 to 8192 bytes of text"),
        ({"format": "slack", "secret": SECRET}, "only what is sent in format pathwatch is signed"),
        ({"headers": ["x"]}, "headers must be a mapping of names to values"),
        ({"headers": {"a b": "x"}}, "headers: a name must be letters, digits and dashes"),
        ({"headers": {"Content-Type": "x"}}, "headers: Content-Type is set by pathwatch"),
        ({"headers": {"X-Pathwatch-Signature": "x"}}, "X-Pathwatch-Signature is set by pathwatch"),
        ({"headers": {"X-A": "a\r\nX-B: c"}}, "headers: the value of X-A must be one line of ASCII"),
        ({"headers": {"X-A": 7}}, "headers: the value of X-A must be text, or in a file that is named"),
        ({"timeout_seconds": 0}, "timeout_seconds must be a number from 0.1 to 60"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds must be a number"),
        ({"timeout_seconds": True}, "timeout_seconds must be a number"),
        ({"rate": 5}, "rate must be a mapping with per_minute"),
        ({"rate": {"per_hour": 5}}, "rate must be a mapping with per_minute"),
        ({"rate": {"per_minute": 0}}, "rate.per_minute must be a number from 1 to 600"),
        ({"give_up_hours": 1000}, "give_up_hours must be a number from 0.01 to 168"),
        ({"ca_file": "none"}, "ca_file: cannot read none: No such file"),
        ({"ca_file": "binary"}, "ca_file: binary is no certificate"),
        (
            {"ca_file": str(TLS / "ca.pem"), "url": "http://h/"},
            "ca_file needs a url that begins with https://",
        ),
        ({"proxy": "socks5://h"}, "proxy must be http://HOST…"),
        ({"sekret": SECRET}, "webhook 1: has a key that is none of name, format, url, url_file"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "huge").write_text("x" * 10_000)
    text = problem(tmp_path, ENTRY | change)
    assert said in text.replace(f"{tmp_path}/", "")
    assert SECRET not in text
    assert "p@h" not in text


@pytest.mark.slow
def test_what_is_wrong_with_the_whole(tmp_path: Path) -> None:
    assert problem(tmp_path, ENTRY, ENTRY | {"name": "Hook"}) == "two webhooks have the same name"
    assert problem(tmp_path, "x").startswith("webhook 1: must be a mapping")
    assert problem(tmp_path, *[ENTRY | {"name": f"h{i}"} for i in range(33)]) == (
        "holds 33 webhooks; 32 are the most"
    )
    path = tmp_path / "webhooks.yaml"
    for content, said in (
        (b"a: b", "must be a list of webhooks, each with name, format and url"),
        (b"- a: [" + SECRET.encode() + b"\n- {", r"line 2: is not readable as YAML"),
        (b"\xff", "is not readable as YAML"),
        (b"[" * 100_000, "is not readable as YAML"),
        (b"#" * 300_000, "is larger than 262144 bytes, which is no file of webhooks"),
    ):
        path.write_bytes(content)
        with pytest.raises(WebhooksError, match=said) as error:
            read_webhooks(path)
        assert SECRET not in str(error.value)
    missing = tmp_path / "none.yaml"
    assert check(ServerConfig(data=tmp_path, webhooks=missing)) == [
        f"webhooks: cannot read {missing}: No such file or directory"
    ]


def test_plaintext_is_warned_of(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        ENTRY,
        ENTRY | {"name": "local", "url": "http://127.0.0.1:9093/"},
        ENTRY | {"name": "open", "url": "http://h.example:8080/x", "headers": {"X-A": "b"}},
    )
    assert webhook_warnings(read_webhooks(path)) == [
        "webhook 'open': what it is sent travels to http://h.example:8080 in plaintext, its headers too"
    ]


@pytest.mark.parametrize("url", ["https://h", "https://h/ui/", "http://127.0.0.1:9464", "https://[::1]:1/"])
def test_a_public_address(tmp_path: Path, url: str) -> None:
    assert check(ServerConfig(data=tmp_path, public_url=url)) == []


@pytest.mark.parametrize(
    "url", ["h", "ftp://h", "https://", "https://h?a", "https://h#a", "https://h/<x>", "https://h:x"]
)
def test_no_public_address(tmp_path: Path, url: str) -> None:
    (said,) = check(ServerConfig(data=tmp_path, public_url=url))
    assert said.startswith("public_url: must be http://HOST… or https://HOST…")
