"""The page's own files, read once: nothing else can be reached through their paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING

from pathwatch.server.statuspage.responses import (
    HARDENING,
    METHODS,
    Resource,
    answer_resource,
    finish,
    tag_of,
)
from pathwatch.server.web.answers import answer_text

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

PREFIX = "/static/"
SHELL = "index.html"
"""What `/` shows."""
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
"""Content types; files of other kinds (licences, notes) are not served."""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "font-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""What the page may load and do: its own files and the API of its own server, nothing else."""


class Files:
    """A WSGI application for `/` and all below /static/."""

    def __init__(self) -> None:
        self._by_path = dict(_read_all())

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in METHODS:
            allow = [("Allow", ", ".join(METHODS)), *HARDENING]
            return answer_text(start_response, "405 Method Not Allowed", "files are only read\n", allow)
        resource = self._by_path.get(environ.get("PATH_INFO", ""))
        if resource is None:
            body = answer_text(start_response, "404 Not Found", "there is no such file\n", HARDENING)
            return finish(environ, body)
        return answer_resource(environ, start_response, resource)

    @property
    def paths(self) -> Mapping[str, Resource]:
        """What is served, by path."""
        return self._by_path


def _read_all() -> Iterator[tuple[str, Resource]]:
    folder = files("pathwatch.server.statuspage") / "static"
    for path, file in _walk(folder, PREFIX):
        kind = KINDS.get(path[path.rfind(".") :])
        if kind is None:
            continue
        resource = _resource(file.read_bytes(), kind)
        yield path, resource
        if path == PREFIX + SHELL:
            yield "/", resource


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry


def _resource(content: bytes, kind: str) -> Resource:
    return Resource(tag_of(content), kind, lambda: content, (("Content-Security-Policy", POLICY),))
