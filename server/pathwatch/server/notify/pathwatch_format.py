"""Our own JSON documents, and their signature (docs/notifications.md)."""

from __future__ import annotations

import hashlib
import hmac
import json

from pathwatch.server.notify.events import Notification, event_document

VERSION = 1
SIGNATURE = "X-Pathwatch-Signature"


def document(notification: Notification, public_url: str) -> dict[str, object]:
    """One event, or a summary that holds some."""
    events = [event_document(change, public_url) for change in notification.changes]
    if len(events) == 1:
        return {"version": VERSION, **events[0]}
    return {"version": VERSION, "id": notification.id, "kind": "summary", "events": events}


def encode(content: object) -> bytes:
    """JSON, as it is sent."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False).encode()


def signature(content: bytes, secret: str, now: float) -> str:
    """The header SIGNATURE for these bytes, sent at `now` (seconds since the epoch)."""
    time = str(int(now))
    digest = hmac.new(secret.encode(), f"{time}.".encode() + content, hashlib.sha256).hexdigest()
    return f"t={time},v1={digest}"
