"""The file of webhooks (docs/notifications.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from pathwatch.server.config.addresses import is_loopback
from pathwatch.server.config.webhook_fields import parse_webhook
from pathwatch.server.config.webhooks import Webhook, WebhooksError

MOST_BYTES = 256 << 10
"""Size of a file of webhooks."""
MOST_WEBHOOKS = 32
"""Each has a thread."""


@dataclass(frozen=True, slots=True)
class WebhookTable:
    """All webhooks of a file."""

    webhooks: tuple[Webhook, ...]

    @property
    def holds_secrets(self) -> bool:
        """Whether the file itself does."""
        return any(secret.file is None and secret.text for hook in self.webhooks for secret in hook.secrets)

    @property
    def secret_files(self) -> tuple[Path, ...]:
        """Other files that hold the secrets."""
        return tuple(
            secret.file for hook in self.webhooks for secret in hook.secrets if secret.file is not None
        )


def read_webhooks(path: Path) -> WebhookTable:
    """The webhooks of a YAML file. Raises OSError and WebhooksError."""
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    try:
        entries = _entries(content)
        webhooks = tuple(
            parse_webhook(entry, number, path.absolute().parent)
            for number, entry in enumerate(entries, start=1)
        )
    except WebhooksError as error:
        raise WebhooksError(f"{path}: {error}") from None
    if len({webhook.name.lower() for webhook in webhooks}) < len(webhooks):
        raise WebhooksError(f"{path}: two webhooks have the same name")
    return WebhookTable(webhooks)


def webhook_warnings(table: WebhookTable) -> list[str]:
    """What whoever runs the server should know travels in the open, each one line. Raises SecretError."""
    warnings = []
    for webhook in table.webhooks:
        parts = urlsplit(webhook.url.read())
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            warnings.append(
                f"webhook {webhook.name!r}: what it is sent travels to {webhook.receiver()} in plaintext"
                + (", its headers too" if webhook.headers else "")
            )
    return warnings


def _entries(content: bytes) -> list[Mapping[object, object]]:
    if len(content) > MOST_BYTES:
        raise WebhooksError(f"is larger than {MOST_BYTES} bytes, which is no file of webhooks")
    try:
        entries = yaml.safe_load(content.decode())
    except (UnicodeDecodeError, ValueError, RecursionError, yaml.YAMLError) as error:
        # YAML's own text quotes the file.
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise WebhooksError(f"{where}is not readable as YAML") from None
    if not isinstance(entries, list):
        raise WebhooksError("must be a list of webhooks, each with name, format and url")
    if len(entries) > MOST_WEBHOOKS:
        raise WebhooksError(f"holds {len(entries)} webhooks; {MOST_WEBHOOKS} are the most")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, Mapping):
            raise WebhooksError(f"webhook {number}: must be a mapping with name, format and url")
    return entries
