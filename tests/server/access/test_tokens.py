"""A file of tokens: what it may hold, whom it lets in, and that it says nothing of what it holds."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from hmac import compare_digest
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.access import tokens as tokens_module
from pathwatch.server.access.tokens import (
    Scope,
    TokensError,
    TokenTable,
    new_secret,
    parse_tokens,
    read_tokens,
)

HASH = hashlib.sha256(b"pw_secret").hexdigest()


def table(*entries: dict[str, object]) -> TokenTable:
    return parse_tokens(yaml.safe_dump(list(entries)).encode())


def entry(**changes: object) -> dict[str, object]:
    return {"name": "job", "sha256": HASH, "scopes": ["ingest"], **changes}


def test_a_token_is_found_by_its_secret_alone() -> None:
    other = entry(name="other", sha256=hashlib.sha256(b"pw_other").hexdigest(), scopes=["read", "control"])
    tokens = table(entry(), other)
    found = tokens.find("pw_other")
    assert found is not None
    assert (found.name, found.scopes) == ("other", {Scope.READ, Scope.CONTROL})
    assert tokens.find("pw_secret") is tokens.tokens[0]
    for wrong in ("", "pw_secre", "pw_secret ", "PW_SECRET", HASH, "schlüssel"):
        assert tokens.find(wrong) is None


def test_every_entry_is_compared_wherever_the_match_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """And all by `compare_digest`: how long it takes tells nothing."""
    entries = [entry(name=f"t{i}", sha256=hashlib.sha256(f"s{i}".encode()).hexdigest()) for i in range(5)]
    tokens = table(*entries)
    compared = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return compare_digest(a, b)

    monkeypatch.setattr(tokens_module.hmac, "compare_digest", compare)
    for secret in ("s0", "s4", "none"):
        compared.clear()
        tokens.find(secret)
        assert len(compared) == 5


def test_runs_by_name_or_glob() -> None:
    (token,) = table(entry(runs=["olmoe", "abc-*"])).tokens
    assert not token.is_for_all_runs
    assert [token.is_for(run) for run in ("olmoe", "abc-1", "olmoe2", "ABC-1", "xabc-1", "")] == [
        *[True, True],
        *[False, False, False, False],
    ]
    (token,) = table(entry()).tokens
    assert token.is_for_all_runs
    assert token.is_for("anything")


@pytest.mark.parametrize(
    "written", ["2027-01-31", "'2027-01-31'", "2027-01-31T00:00:00Z", "2027-01-31 01:00:00+01:00"]
)
def test_expiry(written: str) -> None:
    content = f"- {{name: job, sha256: '{HASH}', scopes: [read], expires: {written}}}"
    (token,) = parse_tokens(content.encode()).tokens
    end = datetime(2027, 1, 31, tzinfo=UTC).timestamp()
    assert not token.has_expired(end - 1)
    assert token.has_expired(end)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "must be a list"),
        ("name: job", "must be a list"),
        ("- job", "token 1: must be a mapping"),
        ("- [", "line 1: is not readable as YAML"),
        ("- {name: a, token: pw_s3cret}", "token 1: has a key that is none of name, sha256"),
        ("- {pw_s3cret: a}", "token 1: has a key that is none of"),
        ("- {name: 'pw s3cret', sha256: x, scopes: [read]}", "token 1: name must be"),
        ("- {name: a, sha256: pw_s3cret, scopes: [read]}", "token 'a': sha256 must be the hash"),
        (f"- {{name: a, sha256: {HASH.upper()}, scopes: [read]}}", "token 'a': sha256 must be the hash"),
        ("- {name: a, sha256: 12, scopes: [read]}", "token 'a': sha256 must be the hash"),
        (
            f"- {{name: a, sha256: '{HASH}'}}",
            "token 'a': scopes must be a list of some of ingest, read, control",
        ),
        (f"- {{name: a, sha256: '{HASH}', scopes: []}}", "token 'a': scopes must be"),
        (f"- {{name: a, sha256: '{HASH}', scopes: read}}", "token 'a': scopes must be"),
        (f"- {{name: a, sha256: '{HASH}', scopes: [admin]}}", "token 'a': scopes must be"),
        (f"- {{name: a, sha256: '{HASH}', scopes: [[read]]}}", "token 'a': scopes must be"),
        (f"- {{name: a, sha256: '{HASH}', scopes: [read], runs: []}}", "token 'a': runs must be"),
        (f"- {{name: a, sha256: '{HASH}', scopes: [read], runs: abc}}", "token 'a': runs must be"),
        (f"- {{name: a, sha256: '{HASH}', scopes: [read], runs: ['']}}", "token 'a': runs must be"),
        (
            f"- {{name: a, sha256: '{HASH}', scopes: [read], expires: soon}}",
            "token 'a': expires must be a date",
        ),
        (
            f"- {{name: a, sha256: '{HASH}', scopes: [read], expires: 2027}}",
            "token 'a': expires must be a date",
        ),
        (f"- {{name: a, sha256: '{HASH}', scopes: [read], expires: }}", "token 'a': expires must be a date"),
        (f"- {{name: a, sha256: '{HASH}', scopes: [read]}}\n" * 2, "two tokens have the same name"),
        (
            "".join(f"- {{name: {name}, sha256: '{HASH}', scopes: [read]}}\n" for name in "ab"),
            "two tokens have the same sha256",
        ),
        ("- !!python/object/apply:os.system ['true']", "line 1: is not readable as YAML"),
        ("- '" + "x" * (1 << 20) + "'", "is larger than"),
        ("{a: " * 50_000, ""),
        *[pytest.param(opening * 50_000, "", marks=pytest.mark.slow) for opening in ("[", "- ", "? ")],
    ],
)
def test_what_is_wrong_is_named_and_nothing_quoted(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "tokens.yaml"
    path.write_text(content)
    with pytest.raises(TokensError) as raised:
        read_tokens(path)
    assert str(raised.value).startswith(f"{path}: {says}")
    assert "s3cret" not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.__cause__ is None


@given(
    st.binary(max_size=200) | st.text(alphabet="-[]{}:,&*!|>'\" \nab\\x00#%@", max_size=80).map(str.encode)
)
def test_any_content_is_a_table_or_a_tokens_error(content: bytes) -> None:
    try:
        parse_tokens(content)
    except TokensError as error:
        assert "\n" not in str(error)  # noqa: PT017  # most contents are refused, some are not


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
    | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.slow
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "name": st.just("a") | _json,
                "sha256": st.just(HASH) | _json,
                "scopes": st.just(["read"]) | _json,
            },
            optional={"runs": _json, "expires": _json},
        ),
        max_size=2,
    )
)
def test_any_entry_is_a_token_or_a_tokens_error(entries: list[dict[str, object]]) -> None:
    try:
        found = parse_tokens(yaml.safe_dump(entries).encode())
    except TokensError:
        return
    for token in found.tokens:
        assert token.scopes
        assert len(token.sha256) == 32


def test_secrets_are_long_and_never_the_same() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(secret.startswith("pw_") and len(secret) >= 46 and secret.isascii() for secret in made)
