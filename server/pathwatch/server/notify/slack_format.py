"""Messages as Slack's incoming webhooks take them: blocks, and a text for where there is room for no more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pathwatch.server.changes.diff import BestCheckpointChange, Change
from pathwatch.server.notify.events import Notification, run_link
from pathwatch.server.notify.words import details, headline

HEADER_LENGTH = 150
"""Characters that Slack takes in a header."""
TEXT_LENGTH = 2900
"""Characters in a section, of which Slack takes 3000."""
LISTED = 20
"""Changes that a summary lists; of the others it says how many there are."""


def message(notification: Notification, public_url: str) -> dict[str, object]:
    """A message about one change, or about some."""
    changes = notification.changes
    if len(changes) == 1:
        return {"text": _clip(headline(changes[0]), TEXT_LENGTH), "blocks": _one(changes[0], public_url)}
    title = f"{len(changes)} changes in {_runs(changes)}"
    return {"text": _clip(title, TEXT_LENGTH), "blocks": [_header(title), *_list(changes, public_url)]}


def notice(text: str) -> dict[str, object]:
    """A message that tells of no change."""
    return {"text": _clip(text, TEXT_LENGTH), "blocks": [_section(_clip(text, TEXT_LENGTH))]}


def _one(change: Change, public_url: str) -> list[dict[str, object]]:
    blocks = [_header(headline(change))]
    if not isinstance(change, BestCheckpointChange) and change.reason.strip():
        blocks.append(_section(_clip(change.reason, TEXT_LENGTH)))
    foot = _clip(details(change), TEXT_LENGTH - 1000)
    if public_url:
        foot += f" · <{_clip(run_link(change.run, public_url), 900)}|open the run>"
    blocks.append({"type": "context", "elements": [_text(foot)]})
    return blocks


def _list(changes: Sequence[Change], public_url: str) -> Iterator[dict[str, object]]:
    for change in changes[:LISTED]:
        yield _section(f"• {_clip(headline(change), HEADER_LENGTH)} (step {change.step})")
    foot = f"and {len(changes) - LISTED} more" if len(changes) > LISTED else ""
    if public_url:
        foot += f" <{_clip(public_url, 900)}|open the status page>"
    if foot:
        yield {"type": "context", "elements": [_text(foot.strip())]}


def _runs(changes: Sequence[Change]) -> str:
    runs = sorted({change.run for change in changes})
    return f"run {runs[0]}" if len(runs) == 1 else f"{len(runs)} runs"


def _header(text: str) -> dict[str, object]:
    return {
        "type": "header",
        "text": {"type": "plain_text", "text": _clip(text, HEADER_LENGTH), "emoji": False},
    }


def _section(text: str) -> dict[str, object]:
    return {"type": "section", "text": _text(text)}


def _text(text: str) -> dict[str, object]:
    # Verbatim: nothing in a name becomes a link, a channel or a mention.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _clip(text: str, length: int) -> str:
    """Escaped as Slack asks for, on one line, at most so many characters, none of them half an escape."""
    clipped = ""
    for character in " ".join(text.split()):
        escaped = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}.get(character, character)
        if len(clipped) + len(escaped) > length - 1:
            return clipped + "…"
        clipped += escaped
    return clipped
