"""Whole answers to HTTP requests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import StartResponse


def answer(
    start_response: StartResponse,
    status: str,
    body: bytes,
    kind: str,
    headers: Iterable[tuple[str, str]] = (),
) -> list[bytes]:
    """A body of the content type `kind`."""
    own = [("Content-Type", kind), ("Content-Length", str(len(body)))]
    start_response(status, [*own, *headers])
    return [body]


def answer_text(
    start_response: StartResponse, status: str, text: str, headers: Iterable[tuple[str, str]] = ()
) -> list[bytes]:
    """Plain text."""
    return answer(start_response, status, text.encode(), "text/plain; charset=utf-8", headers)
