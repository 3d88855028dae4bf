"""Webhooks: who is told of what, and how (docs/notifications.md)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

from pathwatch.server.config.secrets import Secret


class WebhooksError(ValueError):
    """A file of webhooks that cannot be used; the message says where and why, and holds no secret."""


class Format(StrEnum):
    """What a webhook is sent."""

    PATHWATCH = "pathwatch"
    """Our own JSON documents, signed."""
    SLACK = "slack"
    """Messages, as Slack's incoming webhooks take them."""
    ALERTMANAGER = "alertmanager"
    """Alerts, as Alertmanager takes them from Prometheus."""


class Event(StrEnum):
    """What a webhook may be told of."""

    PHASE = "phase"
    ACTION = "action"
    CHECKPOINT = "checkpoint"
    """Another checkpoint is the best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Whom to tell of what, and how."""

    name: str
    format: Format
    url: Secret
    """Where to POST: of Slack's kind it opens the door by itself."""
    events: frozenset[Event]
    runs: tuple[str, ...] = ("*",)
    """Names or globs."""
    groups: tuple[str, ...] = ("*",)
    """Names or globs; of what concerns a run as a whole, this leaves nothing out."""
    phases: frozenset[str]
    """Names of the phases that a group must come to."""
    secret: Secret | None = None
    """Signs what is sent."""
    headers: tuple[tuple[str, Secret], ...] = ()
    """Further headers, (name, value)."""
    timeout_seconds: float = 10.0
    """Longest wait for the connection, and for each piece of the answer."""
    per_minute: int = 30
    """Notifications; what is over that is joined into one."""
    give_up_hours: float = 24.0
    """How long one notification is tried."""
    ca_file: Path | None = None
    """Authority that the receiver's certificate must be of, PEM; None = those of the system."""
    proxy: Secret | None = None
    """URL of an HTTP proxy to go through; the environment's are not looked at."""

    def is_for(self, run: str, group: str = "") -> bool:
        """Whether it is to hear of that run, and of that group where one is named."""
        return _matches(run, self.runs) and (not group or _matches(group, self.groups))

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Everything of it that may not be shown."""
        named = (self.url, self.secret, self.proxy, *(value for _, value in self.headers))
        return tuple(secret for secret in named if secret is not None)

    def receiver(self) -> str:
        """Where it goes, without what may be secret: SCHEME://HOST:PORT. Raises SecretError."""
        parts = urlsplit(self.url.read())
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
