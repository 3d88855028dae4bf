"""What is wrong with what notifications are told at the start."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pathwatch.server.config.webhook_file import read_webhooks
from pathwatch.server.config.webhooks import WebhooksError


def notification_problems(webhooks: Path | None, public_url: str) -> list[str]:
    """Each one line."""
    problems = []
    if webhooks is not None:
        try:
            read_webhooks(webhooks)
        except OSError as error:
            problems.append(f"webhooks: cannot read {webhooks}: {error.strerror}")
        except WebhooksError as error:
            problems.append(f"webhooks: {error}")
    if public_url and not _is_base(public_url):
        problems.append(
            "public_url: must be http://HOST… or https://HOST…, without ? and #, such as "
            "https://pathwatch.example.org"
        )
    return problems


def _is_base(url: str) -> bool:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return fine and url.isascii() and url.isprintable() and not set(url) & set(' ?#<>|"\\')
