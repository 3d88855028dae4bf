"""Why something that a caller sent is not taken."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Code(enum.IntEnum):
    """The gRPC status codes the service refuses with; values equal grpc.StatusCode's numbers."""

    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    INTERNAL = 13
    UNAVAILABLE = 14


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

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message
