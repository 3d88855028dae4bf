"""A notification that tells of nothing: whether a webhook works."""

from __future__ import annotations

import time
import uuid

from pathwatch.server.config import Format, Webhook
from pathwatch.server.notify import alertmanager_format, pathwatch_format, slack_format
from pathwatch.server.notify.delivery import attempt
from pathwatch.server.notify.sending import Outcome

TEXT = "A test of pathwatch's notifications: this webhook works."


def send_test(webhook: Webhook) -> tuple[bool, str]:
    """Send one, once: whether the receiver took it, and what it said."""
    now = time.time()
    content: object
    match webhook.format:
        case Format.PATHWATCH:
            content = {
                "version": pathwatch_format.VERSION,
                "id": uuid.uuid4().hex,
                "kind": "test",
                "message": TEXT,
            }
        case Format.SLACK:
            content = slack_format.notice(TEXT)
        case Format.ALERTMANAGER:
            content = alertmanager_format.notice(TEXT, now)
    answer = attempt(webhook, pathwatch_format.encode(content), now)
    return answer.outcome is Outcome.DELIVERED, answer.said
