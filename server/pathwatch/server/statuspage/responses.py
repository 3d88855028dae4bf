"""Answers that browsers keep and ask about again: tags, compression, and what a browser may do with them."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pathwatch.server.web.answers import answer

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

METHODS = ("GET", "HEAD")
COMPRESSED_FROM = 1400
"""Bytes of a body that are worth compressing: what does not fit one packet."""
_LEVEL = 1
"""Of gzip: numbers as text shrink threefold at it, and hardly more at higher ones."""
HARDENING = (("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"))
_NO_GZIP = re.compile(r"gzip\s*;\s*q=0(\.0*)?\s*$")


@dataclass(frozen=True, slots=True)
class Resource:
    """What a path holds at this moment."""

    tag: str
    """Changes whenever the body may have changed; opaque, without quotes."""
    kind: str
    """Content type."""
    body: Callable[[], bytes]
    """Called only where the body is wanted."""
    headers: tuple[tuple[str, str], ...] = ()


def tag_of(*parts: object) -> str:
    """A tag for what is determined by `parts`, numbers and texts."""
    return hashlib.blake2b(repr(parts).encode("utf-8", "backslashreplace"), digest_size=12).hexdigest()


def answer_resource(
    environ: WSGIEnvironment, start_response: StartResponse, resource: Resource
) -> Iterable[bytes]:
    """The resource, or 304 where the asker has it."""
    headers = [
        ("ETag", f'W/"{resource.tag}"'),
        ("Cache-Control", "no-cache"),
        ("Vary", "Accept-Encoding"),
        *HARDENING,
        *resource.headers,
    ]
    if _has_it(environ.get("HTTP_IF_NONE_MATCH", ""), resource.tag):
        start_response("304 Not Modified", headers)
        return iter((b"",))  # of a list the length is taken for that of the body, and caches would believe it
    body = resource.body()
    if len(body) >= COMPRESSED_FROM and _takes_gzip(environ.get("HTTP_ACCEPT_ENCODING", "")):
        body = gzip.compress(body, _LEVEL, mtime=0)
        headers.append(("Content-Encoding", "gzip"))
    return finish(environ, answer(start_response, "200 OK", body, resource.kind, headers))


def finish(environ: WSGIEnvironment, body: list[bytes]) -> list[bytes]:
    """The body, or none where only the head was asked for."""
    return [b""] if environ["REQUEST_METHOD"] == "HEAD" else body


def _has_it(if_none_match: str, tag: str) -> bool:
    held = {each.strip().removeprefix("W/") for each in if_none_match.split(",")}
    return "*" in held or f'"{tag}"' in held


def _takes_gzip(accept_encoding: str) -> bool:
    wanted = [each.strip().lower() for each in accept_encoding.split(",")]
    return any(each.partition(";")[0].strip() == "gzip" and not _NO_GZIP.match(each) for each in wanted)
