"""Signatures that others can verify, and identities that stay."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.changes.diff import PhaseChange
from pathwatch.server.notify.events import Notification, change_id
from pathwatch.server.notify.pathwatch_format import document, encode, signature

CHANGE = PhaseChange(
    run="run",
    revision=2,
    at=1_700_000_000.123456,
    step=20,
    group="math",
    before="LEARNING",
    after="MEMORIZED",
    reason="so it is",
    evidence={"nan": math.nan, "inf": -math.inf, "one": 1.0},
)


def hmac_sha256(key: bytes, text: bytes) -> str:
    """RFC 2104, by hand."""
    key = hashlib.sha256(key).digest() if len(key) > 64 else key
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + text).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).hexdigest()


@given(st.binary(max_size=500), st.text(min_size=1, max_size=200), st.floats(0, 4e9))
def test_the_signature_is_that_of_the_documentation(body: bytes, secret: str, now: float) -> None:
    key = secret.encode("utf-8", "surrogatepass")
    if key.decode("utf-8", "replace") != secret:
        return
    sent = str(int(now)).encode()
    assert signature(body, secret, now) == f"t={sent.decode()},v1={hmac_sha256(key, sent + b'.' + body)}"


def test_numbers_that_json_has_no_word_for() -> None:
    content = document(Notification([CHANGE]), "")
    assert content["evidence"] == {"nan": None, "inf": None, "one": 1.0}
    assert b'"nan": null' in encode(content)
    assert content["links"] == {}


def test_an_identity_is_that_of_one_change_alone() -> None:
    others = [
        replace(CHANGE, run="other"),
        replace(CHANGE, group="code"),
        replace(CHANGE, revision=3),
        replace(CHANGE, at=CHANGE.at + 1e-6),
        replace(CHANGE, run="runmath", group=""),
    ]
    assert len({change_id(change) for change in [CHANGE, *others]}) == 6
    assert change_id(replace(CHANGE, reason="other words")) == change_id(CHANGE)
    assert Notification([CHANGE]).id == change_id(CHANGE)
    assert Notification([CHANGE, others[0]]).id not in {change_id(CHANGE), change_id(others[0])}
    assert Notification([CHANGE, others[0]]).id != Notification([CHANGE, others[1]]).id
