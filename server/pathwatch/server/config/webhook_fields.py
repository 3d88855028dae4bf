"""One entry of the file of webhooks, field by field. Errors hold nothing of the file but names."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pathwatch.server.config.secrets import Secret, SecretError
from pathwatch.server.config.webhooks import Event, Format, Webhook, WebhooksError

PHASES = ("UNKNOWN", "LEARNING", "MEMORIZED", "GENERALIZING", "GENERALIZED", "OVERFITTING", "REGRESSING")
"""As people write them."""
NOTEWORTHY = ("GENERALIZING", "GENERALIZED", "OVERFITTING", "REGRESSING")
"""Phases that are alerts where the file does not say which."""
SHORTEST_SECRET = 16
KEYS = (
    *("name", "format", "url", "url_file", "events", "runs", "groups", "phases", "secret", "secret_file"),
    *("headers", "timeout_seconds", "rate", "give_up_hours", "ca_file", "proxy"),
)
"""Of an entry."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS = ("content-type", "content-length", "host", "transfer-encoding", "connection")


def parse_webhook(entry: Mapping[object, object], number: int, folder: Path) -> Webhook:
    """A webhook; `folder` is that which files are named from. Raises WebhooksError."""
    where = f"webhook {number}"
    if not entry.keys() <= set(KEYS):
        # The stray key itself may be a secret in the wrong place.
        raise WebhooksError(f"{where}: has a key that is none of {', '.join(KEYS)}")
    name = entry.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise WebhooksError(
            f"{where}: name must be 1 to 64 letters, digits, and . _ -, a letter or digit first"
        )
    try:
        return _webhook(entry, name, folder)
    except (SecretError, WebhooksError) as error:
        raise WebhooksError(f"webhook {name!r}: {error}") from None


def _webhook(entry: Mapping[object, object], name: str, folder: Path) -> Webhook:
    known = [one.value for one in Format]
    if entry.get("format") not in known:
        raise WebhooksError(f"format must be one of {', '.join(known)}")
    kind = Format(str(entry["format"]))
    url = _secret(entry, "url", folder)
    if url is None:
        raise WebhooksError("needs url or url_file")
    scheme = _check_url(url, "url")
    ca_file = _ca_file(entry.get("ca_file"), folder)
    if ca_file is not None and scheme != "https":
        raise WebhooksError("ca_file needs a url that begins with https://")
    proxy = _secret(entry, "proxy", folder)
    if proxy is not None:
        _check_url(proxy, "proxy", credentials=True)
    alerts = kind is Format.ALERTMANAGER
    return Webhook(
        name=name,
        format=kind,
        url=url,
        events=_events(entry.get("events", ["phase", "action"]), alerts=alerts),
        runs=_globs(entry, "runs"),
        groups=_globs(entry, "groups"),
        phases=_phases(entry.get("phases", list(NOTEWORTHY if alerts else PHASES))),
        secret=_signing(_secret(entry, "secret", folder), kind),
        headers=_headers(entry.get("headers", {}), folder),
        timeout_seconds=_number(entry.get("timeout_seconds", 10), "timeout_seconds", 0.1, 60),
        per_minute=int(_per_minute(entry.get("rate", {}))),
        give_up_hours=_number(entry.get("give_up_hours", 24), "give_up_hours", 0.01, 168),
        ca_file=ca_file,
        proxy=proxy,
    )


def _secret(entry: Mapping[object, object], key: str, folder: Path) -> Secret | None:
    text, file = entry.get(key), entry.get(f"{key}_file")
    if text is not None and file is not None:
        raise WebhooksError(f"{key} and {key}_file are two of the same; give one")
    if text is None and file is None:
        return None
    if isinstance(text, Mapping):
        raise WebhooksError(f"{key} must be text; {key}_file names a file that holds it")
    secret = _text_or_file(text if file is None else {"file": file}, key, folder)
    secret.read()
    return secret


def _text_or_file(value: object, what: str, folder: Path) -> Secret:
    """Text, or a mapping that names a file."""
    if isinstance(value, str) and value:
        return Secret(value)
    if isinstance(value, Mapping) and value.keys() == {"file"} and isinstance(value["file"], str):
        return Secret(file=folder / value["file"])
    raise WebhooksError(f"{what} must be text, or in a file that is named")


def _check_url(url: Secret, what: str, *, credentials: bool = False) -> str:
    try:
        parts = urlsplit(url.read())
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        fine = fine and url.read().isascii() and url.read().isprintable() and " " not in url.read()
    except SecretError:
        raise
    except ValueError:
        fine = False
    if not fine:
        raise WebhooksError(f"{what} must be http://HOST… or https://HOST…, in ASCII")
    if "@" in parts.netloc and not credentials:
        raise WebhooksError(f"{what} must not hold a user or password; give headers: {{Authorization: …}}")
    if parts.fragment:
        raise WebhooksError(f"{what} must not hold a #fragment, which no server is sent")
    return parts.scheme


def _events(value: object, *, alerts: bool) -> frozenset[Event]:
    known = [event.value for event in Event if not (alerts and event is Event.CHECKPOINT)]
    if not isinstance(value, list) or not value or not all(item in known for item in value):
        why = "; a best checkpoint is no condition that ends" if alerts else ""
        raise WebhooksError(f"events must be a list of some of {', '.join(known)}{why}")
    return frozenset(Event(item) for item in value)


def _phases(value: object) -> frozenset[str]:
    if not isinstance(value, list) or not value or not all(item in PHASES for item in value):
        raise WebhooksError(f"phases must be a list of some of {', '.join(PHASES)}")
    return frozenset(value)


def _globs(entry: Mapping[object, object], key: str) -> tuple[str, ...]:
    value = entry.get(key, ["*"])
    if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
        raise WebhooksError(f"{key} must be a list of names or globs; leave it out for all {key}")
    return tuple(value)


def _signing(secret: Secret | None, kind: Format) -> Secret | None:
    if secret is not None and kind is not Format.PATHWATCH:
        raise WebhooksError("only what is sent in format pathwatch is signed; leave the secret out")
    if secret is not None and len(secret.read()) < SHORTEST_SECRET:
        raise WebhooksError(f"secret must have at least {SHORTEST_SECRET} characters: openssl rand -hex 32")
    return secret


def _headers(value: object, folder: Path) -> tuple[tuple[str, Secret], ...]:
    if not isinstance(value, Mapping):
        raise WebhooksError("headers must be a mapping of names to values")
    headers = []
    for name, content in value.items():
        if not isinstance(name, str) or not _HEADER.fullmatch(name):
            raise WebhooksError("headers: a name must be letters, digits and dashes")
        if name.lower() in _OURS or name.lower().startswith("x-pathwatch-"):
            raise WebhooksError(f"headers: {name} is set by pathwatch")
        secret = _text_or_file(content, f"headers: the value of {name}", folder)
        if not (secret.read().isascii() and secret.read().isprintable()):
            raise WebhooksError(f"headers: the value of {name} must be one line of ASCII")
        headers.append((name, secret))
    return tuple(headers)


def _per_minute(value: object) -> float:
    if not isinstance(value, Mapping) or not value.keys() <= {"per_minute"}:
        raise WebhooksError("rate must be a mapping with per_minute")
    return _number(value.get("per_minute", 30), "rate.per_minute", 1, 600)


def _number(value: object, what: str, least: float, most: float) -> float:
    # A bool is an int to Python, and NaN is within no bounds.
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise WebhooksError(f"{what} must be a number from {least:g} to {most:g}")
    return float(value)


def _ca_file(value: object, folder: Path) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise WebhooksError("ca_file must name a PEM file")
    path = folder / value
    try:
        ssl.create_default_context(cafile=str(path))
    except ssl.SSLError:
        raise WebhooksError(f"ca_file: {path} is no certificate") from None
    except OSError as error:
        raise WebhooksError(f"ca_file: cannot read {path}: {error.strerror}") from None
    return path
