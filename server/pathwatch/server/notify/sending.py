"""One attempt to deliver: a POST, and what came of it in words that hold no secret."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit

import urllib3
from urllib3 import exceptions

from pathwatch.server.config import SecretError, Webhook

# It writes whole URLs to its log, which for Slack are secrets.
logging.getLogger("urllib3").setLevel(logging.ERROR)

AGAIN = (408, 425, 429)
"""Answers of the 4xx kind that another attempt may change, as all of the 5xx kind."""
LONGEST_RETRY_AFTER = 3600.0
"""Seconds; a receiver that asks for more is tried earlier."""
MOST_READ = 4096
"""Bytes of an answer; in one piece, so that one that trickles ends soon."""
SHOWN = 200
"""Characters of an answer that are shown."""
TELLING = 4
"""Characters; less of a secret than that tells nothing."""


class Outcome(Enum):
    """What came of an attempt."""

    DELIVERED = auto()
    RETRY = auto()
    """Another attempt may fare better."""
    REFUSED = auto()
    """No other will."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an attempt, and why."""

    outcome: Outcome
    said: str
    retry_after: float = field(default=0.0)
    """Seconds that the receiver asks to be left alone for."""


def post(webhook: Webhook, url: str, content: bytes, headers: dict[str, str]) -> Answer:
    """Send JSON. Redirects are not followed, certificates are verified, the environment's proxies unused."""
    try:
        sent = {
            "Content-Type": "application/json",
            "User-Agent": "pathwatch",
            **headers,
            **{name: value.read() for name, value in webhook.headers},
        }
        with _pool(webhook) as pool:
            response = pool.request(
                "POST",
                url,
                body=content,
                headers=sent,
                timeout=urllib3.Timeout(connect=webhook.timeout_seconds, read=webhook.timeout_seconds),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            with contextlib.closing(response):
                return _judge(webhook, response)
    except SecretError as error:
        return Answer(Outcome.RETRY, str(error))
    except (exceptions.HTTPError, OSError, ValueError) as error:
        return Answer(Outcome.RETRY, _why(webhook, error))


def _pool(webhook: Webhook) -> urllib3.PoolManager:
    """Made anew for each attempt: certificates may have been replaced."""
    authority = str(webhook.ca_file) if webhook.ca_file else None
    if webhook.proxy is None:
        return urllib3.PoolManager(ca_certs=authority, cert_reqs="CERT_REQUIRED")
    proxy = urllib3.util.parse_url(webhook.proxy.read())
    headers = urllib3.make_headers(proxy_basic_auth=unquote(proxy.auth)) if proxy.auth else None
    return urllib3.ProxyManager(
        proxy._replace(auth=None).url, proxy_headers=headers, ca_certs=authority, cert_reqs="CERT_REQUIRED"
    )


def _judge(webhook: Webhook, response: urllib3.BaseHTTPResponse) -> Answer:
    status = response.status
    if 200 <= status < 300:
        with contextlib.suppress(exceptions.HTTPError, OSError):
            response.read1(MOST_READ)  # what is left unread would cut the connection
        return Answer(Outcome.DELIVERED, f"it answered {status}")
    said = f"it answered {status}"
    if 300 <= status < 400:
        return Answer(Outcome.REFUSED, f"{said}: redirects are not followed; give the new address as its url")
    if text := _shown(webhook, response):
        said += f": {text}"
    if status not in AGAIN and status < 500:
        return Answer(Outcome.REFUSED, said)
    return Answer(Outcome.RETRY, said, _retry_after(response.headers.get("Retry-After", "")))


def _shown(webhook: Webhook, response: urllib3.BaseHTTPResponse) -> str:
    """The beginning of an answer, without the secrets that it may send back."""
    try:
        text = response.read1(MOST_READ).decode(errors="replace")
        secrets = _secrets(webhook)
    except (exceptions.HTTPError, OSError, SecretError):
        return ""
    text = re.sub("|".join(map(re.escape, secrets)), "…", text, flags=re.IGNORECASE)
    text = _without_cut_secret(text.rstrip("\N{REPLACEMENT CHARACTER}"), secrets)
    return "".join(c if c.isprintable() else " " for c in text)[:SHOWN].strip()


def _without_cut_secret(text: str, secrets: list[str]) -> str:
    """What was read may end within a secret."""
    for secret in secrets:
        for length in range(len(secret) - 1, TELLING - 1, -1):
            if text[-length:].lower() == secret[:length].lower():
                return text[:-length] + "…"
    return text


def _secrets(webhook: Webhook) -> list[str]:
    """As an answer may spell them. Longest first: one may hold another, as a URL does its path."""
    url = urlsplit(webhook.url.read())
    whole = {secret.read() for secret in webhook.secrets} | {url.path, url.query}
    parts = {part.partition("=")[2] or part for part in url.query.split("&")}
    parts |= {value.read().rpartition(" ")[2] for _, value in webhook.headers}  # after "Bearer"
    if webhook.proxy is not None:
        parts.add(urlsplit(webhook.proxy.read()).password or "")
    texts = {text for text in whole if len(text) > 1} | {text for text in parts if len(text) >= TELLING}
    spelled = {spelling for text in texts for spelling in _spellings(text)}
    return sorted(spelled, key=len, reverse=True)


def _spellings(text: str) -> set[str]:
    """The text, percent-encoded or not, in JSON too."""
    encodings = (str, unquote, unquote_plus, quote, quote_plus, lambda plain: quote(plain, safe=""))
    spelled = {encoding(plain) for plain in (text, unquote(text)) for encoding in encodings}
    return spelled | {one.replace("/", r"\/") for one in spelled}


def _retry_after(text: str) -> float:
    """A number of seconds, or a date."""
    try:
        seconds = float(text) if text.isdecimal() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER)


def _why(webhook: Webhook, error: Exception) -> str:
    """In words of ours: those of urllib3 may hold the whole URL."""
    seconds = f"within {webhook.timeout_seconds:g} s"
    match error:
        case exceptions.ProxyError():
            return "the proxy cannot be used"
        case exceptions.NameResolutionError():
            return "its name cannot be resolved"
        case exceptions.NewConnectionError():  # which is a ConnectTimeoutError to urllib3
            return "no connection: refused or unreachable"
        case exceptions.ConnectTimeoutError():
            return f"no connection {seconds}"
        case exceptions.ReadTimeoutError():
            return f"no answer {seconds}"
        case exceptions.SSLError():
            return f"its certificate or TLS is not good: {_tls_reason(error)}"
        case exceptions.ProtocolError():
            return "the connection was cut"
        case OSError():
            return f"cannot be sent: {error.strerror or type(error).__name__}"
    return f"cannot be sent: {type(error).__name__}"


def _tls_reason(error: Exception) -> str:
    cause: BaseException = error.args[0] if error.args and isinstance(error.args[0], BaseException) else error
    return str(getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or type(cause).__name__)
