"""One request: whom it trusts, and what it says of what went wrong."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from webhook_receiver import WebhookReceiver, status

from pathwatch.server.config import Format, Secret, Webhook
from pathwatch.server.notify.sending import Answer, Outcome, post

SIGNING = "s3krät-tóken-of-ours"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def tls(authority: trustme.CA, host: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    return context


def send(url: str, **changes: Any) -> Answer:
    hook = Webhook(
        name="hook",
        format=Format.PATHWATCH,
        url=Secret(url),
        events=frozenset(),
        phases=frozenset(),
        **{"timeout_seconds": 60, **changes},
    )
    return post(hook, url, b"{}", {})


def test_a_certificate_is_verified(authority: trustme.CA, tmp_path: Path) -> None:
    known, other = tmp_path / "known.pem", tmp_path / "other.pem"
    authority.cert_pem.write_to_path(str(known))
    trustme.CA().cert_pem.write_to_path(str(other))
    with WebhookReceiver(tls=tls(authority, "127.0.0.1")) as receiver:
        for ca_file in (None, other):
            answer = send(receiver.url, ca_file=ca_file)
            assert answer.outcome is Outcome.RETRY
            assert answer.said.startswith("its certificate or TLS is not good: ")
        assert receiver.received == []
        assert send(receiver.url, ca_file=known) == Answer(Outcome.DELIVERED, "it answered 200")
    with WebhookReceiver(tls=tls(authority, "elsewhere.example")) as receiver:
        answer = send(receiver.url, ca_file=known)
        assert "IP address mismatch" in answer.said
        assert receiver.received == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://receiver.invalid/secret", "its name cannot be resolved"),
        ("http://127.0.0.1:9/secret", "no connection: refused or unreachable"),
        ("http://192.0.2.1/secret", "no connection"),
    ],
)
def test_what_goes_wrong_is_said_in_words_of_ours(url: str, said: str) -> None:
    answer = send(url, timeout_seconds=0.5)  # nobody answers at any of them
    assert answer.outcome is Outcome.RETRY
    assert answer.said.startswith(said)
    assert "secret" not in answer.said


def test_a_proxy_that_is_away_is_named_as_such() -> None:
    answer = send("https://receiver.invalid/", proxy=Secret("http://u:p@127.0.0.1:9"))
    assert answer == Answer(Outcome.RETRY, "the proxy cannot be used")


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("7", 7), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("soon", 0), ("-5", 0), ("9" * 400, 3600), ("", 0)],
)
def test_a_time_to_wait(asked: str, seconds: float) -> None:
    with WebhookReceiver(status(503, Retry_After=asked)) as receiver:
        assert send(receiver.url).retry_after == seconds


@pytest.mark.parametrize("cut", range(1, len(SIGNING.encode()) + 1))
def test_half_a_secret_is_not_shown_either(cut: int) -> None:
    """Only the first piece of an answer is read, and that may end anywhere."""
    echo = b"no such token: " + SIGNING.encode()[:cut]
    with WebhookReceiver(status(403, echo)) as receiver:
        said = send(receiver.url, secret=Secret(SIGNING)).said
    assert said.startswith("it answered 403: no such token:")
    assert len(said.removeprefix("it answered 403: no such token:").strip()) < 4


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
def test_what_counts_as_delivered(code: int) -> None:
    with WebhookReceiver(status(code)) as receiver:
        assert send(receiver.url).outcome is Outcome.DELIVERED
