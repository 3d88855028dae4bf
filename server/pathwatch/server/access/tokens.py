"""Bearer tokens: who holds which, and what they open. A file knows their hashes only."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

MOST_BYTES = 256 << 10
"""Size of a file of tokens; more than a thousand of them, a second of reading."""
SECRET_PREFIX = "pw_"  # noqa: S105  # what scanners for leaked secrets look for
_KEYS = ("name", "sha256", "scopes", "runs", "expires")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")


class Scope(StrEnum):
    """What a token is for."""

    INGEST = "ingest"
    """A training job: create runs, send observations, register checkpoints, follow the signals."""
    READ = "read"
    """People and dashboards: everything that changes nothing."""
    CONTROL = "control"
    """Finish and delete runs."""


class TokensError(ValueError):
    """A file of tokens that cannot be used; the message says where and why, and holds none of its content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One holder of a token."""

    name: str
    sha256: bytes
    """Hash of the secret. Secrets are random, 256 bits: nothing is gained by a slow hash."""
    scopes: frozenset[Scope]
    runs: tuple[str, ...] = ("*",)
    """Names or globs of the runs it is for."""
    expires: datetime | None = None
    """From then on it opens nothing."""

    def is_for(self, run: str) -> bool:
        """Whether it may be used on that run."""
        return any(fnmatchcase(run, pattern) for pattern in self.runs)

    @property
    def is_for_all_runs(self) -> bool:
        """Whether it is bound to no runs."""
        return "*" in self.runs

    def has_expired(self, now: float) -> bool:
        """Whether it opens nothing any more; `now` in Unix seconds."""
        return self.expires is not None and now >= self.expires.timestamp()


@dataclass(frozen=True, slots=True)
class TokenTable:
    """All tokens of a file."""

    tokens: tuple[Token, ...]

    def find(self, secret: str) -> Token | None:
        """Whose secret it is. Takes the same time whether, and where, it is found."""
        given = hash_of(secret)
        found = None
        for token in self.tokens:
            if hmac.compare_digest(token.sha256, given):
                found = token
        return found


def hash_of(secret: str) -> bytes:
    """SHA-256 of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def new_secret() -> str:
    """A random secret, 256 bits."""
    return SECRET_PREFIX + secrets.token_urlsafe(32)


def read_tokens(path: Path) -> TokenTable:
    """The tokens of a YAML file. Raises OSError and TokensError."""
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    try:
        return parse_tokens(content)
    except TokensError as error:
        raise TokensError(f"{path}: {error}") from None


def parse_tokens(content: bytes) -> TokenTable:
    """The tokens of a YAML list with one mapping for each (docs/security.md). Raises TokensError."""
    if len(content) > MOST_BYTES:
        raise TokensError(f"is larger than {MOST_BYTES} bytes, which is no file of tokens")
    try:
        # Not the loader in C, which is faster: on deeply nested lists it takes the process with it.
        entries = yaml.safe_load(content.decode())
    except (UnicodeDecodeError, ValueError, RecursionError, yaml.YAMLError) as error:
        # YAML's own text quotes the file.
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise TokensError(f"{where}is not readable as YAML") from None
    if not isinstance(entries, list):
        raise TokensError("must be a list of tokens, each with name, sha256 and scopes")
    tokens = tuple(_token(entry, f"token {number}") for number, entry in enumerate(entries, start=1))
    for what, values in (
        ("name", [token.name for token in tokens]),
        ("sha256", [token.sha256 for token in tokens]),
    ):
        if len(set(values)) < len(values):
            raise TokensError(f"two tokens have the same {what}")
    return TokenTable(tokens)


def _token(entry: object, where: str) -> Token:
    if not isinstance(entry, Mapping):
        raise TokensError(f"{where}: must be a mapping with name, sha256 and scopes")
    if not entry.keys() <= set(_KEYS):
        # The stray key itself may be a secret in the wrong place.
        raise TokensError(f"{where}: has a key that is none of {', '.join(_KEYS)}")
    name, sha256 = entry.get("name"), entry.get("sha256")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise TokensError(f"{where}: name must be 1 to 64 letters, digits, and . _ @ -")
    where = f"token {name!r}"
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise TokensError(
            f"{where}: sha256 must be the hash of the secret, 64 hexadecimal digits in quotes; "
            "`pathwatch token` makes both"
        )
    return Token(
        name=name,
        sha256=bytes.fromhex(sha256),
        scopes=_scopes(entry.get("scopes"), where),
        runs=_runs(entry.get("runs", ["*"]), where),
        expires=_expires(entry["expires"], where) if "expires" in entry else None,
    )


def _scopes(value: object, where: str) -> frozenset[Scope]:
    known = [scope.value for scope in Scope]
    texts = _texts(value)
    if texts is None or not set(texts) <= set(known):
        raise TokensError(f"{where}: scopes must be a list of some of {', '.join(known)}")
    return frozenset(map(Scope, texts))


def _runs(value: object, where: str) -> tuple[str, ...]:
    texts = _texts(value)
    if texts is None:
        raise TokensError(f"{where}: runs must be a list of names or globs; leave it out for all runs")
    return texts


def _texts(value: object) -> tuple[str, ...] | None:
    """The items of a list of texts that is not empty."""
    if not isinstance(value, list) or not value:
        return None
    texts = tuple(item for item in value if isinstance(item, str) and item)
    return texts if len(texts) == len(value) else None


def _expires(value: object, where: str) -> datetime:
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if isinstance(value, datetime):
            when = value if value.tzinfo else value.replace(tzinfo=UTC)
            when.timestamp()
            return when
    except (ValueError, OverflowError):
        pass
    raise TokensError(f"{where}: expires must be a date or time such as 2027-01-31 (UTC)")
