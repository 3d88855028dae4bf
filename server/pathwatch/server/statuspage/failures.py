"""Why a request of the JSON API gets no document."""

from __future__ import annotations

from dataclasses import dataclass

from pathwatch.server.engine.refusal import one_line


@dataclass(eq=False)
class ApiError(Exception):
    """An answer that is an error; `code` is what programs tell them apart by."""

    status: str
    """HTTP status line: `404 Not Found`."""
    code: str
    message: str
    """What was wrong, where, and what to do."""
    headers: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        self.message = one_line(self.message)


def bad_request(message: str) -> ApiError:
    """A parameter cannot be used."""
    return ApiError("400 Bad Request", "bad_request", message)


def not_found(message: str) -> ApiError:
    """There is no such path, run or group."""
    return ApiError("404 Not Found", "not_found", message)


def busy(message: str, retry_seconds: int) -> ApiError:
    """The same request can succeed later."""
    return ApiError("503 Service Unavailable", "unavailable", message, (("Retry-After", str(retry_seconds)),))
