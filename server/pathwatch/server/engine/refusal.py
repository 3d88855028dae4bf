"""Why something that a caller sent is not taken."""

from __future__ import annotations

import enum
from dataclasses import dataclass

MAX_MESSAGE = 500
"""Characters of a refusal; what was sent may be quoted in it, and that may be megabytes."""


class Code(enum.IntEnum):
    """The gRPC status codes the service refuses with; values equal grpc.StatusCode's numbers."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


@dataclass(eq=False)
class RefusedError(Exception):
    """A message or call that is not taken: nothing of it was stored."""

    code: Code
    message: str
    """What was wrong, where, and what to do."""
    field: str = ""
    """Field at fault, as a path in the message: "batch.weights"."""
    sample_id: int | None = None
    """Sample at fault, where one is."""

    def __post_init__(self) -> None:
        self.message = one_line(self.message)

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


SOON = 2.0
"""Seconds to wait where what others do makes room."""
LATER = 60.0
"""Seconds to wait where somebody has to do something."""
NEVER = 3600.0
"""Seconds to wait where nothing is expected to make room."""


class LimitError(RefusedError):
    """Something is past a bound of the service."""

    def __init__(self, limit: str, message: str, field: str = "", *, retry_seconds: float = LATER) -> None:
        """`limit` names the field of `Limits`; `retry_seconds` is how long the caller had better wait."""
        super().__init__(Code.RESOURCE_EXHAUSTED, message, field)
        self.limit = limit
        self.retry_seconds = retry_seconds


class OverloadError(LimitError):
    """There is no room at the moment: the stream ends, and what it did not get through comes again."""

    def __init__(self, limit: str, message: str, field: str = "") -> None:
        super().__init__(limit, message, field, retry_seconds=SOON)


class MovedError(RefusedError):
    """Another server has the run."""

    def __init__(self, run: str, owner: str) -> None:
        """`owner` is HOST:PORT at which that server is reached; empty = not known."""
        where = f"is served by {owner}; connect there" if owner else "is another server's; connect again"
        super().__init__(Code.UNAVAILABLE, f"run {run!r} {where}")
        self.owner = owner


def no_run(name: str) -> RefusedError:
    """There is none of that name."""
    return RefusedError(Code.NOT_FOUND, f"there is no run {name!r}")


def one_line(text: str, most: int = MAX_MESSAGE) -> str:
    """The text's beginning, at most `most` characters, control characters escaped: fit for logs."""
    shown = text if len(text) <= most else f"{text[: most - 1]}…"
    if shown.isprintable():
        return shown
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in shown)
