"""Requests to the HTTP listener, as a browser or curl would send them, and to WSGI applications directly."""

from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment


@dataclass(frozen=True)
class Reply:
    """An answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def document(self) -> Any:
        """The content as JSON, strictly: NaN and infinities are none."""
        assert self.headers["content-type"] == "application/json"
        content = gzip.decompress(self.content) if "content-encoding" in self.headers else self.content
        return json.loads(content, parse_constant=_refuse)


def ask(address: str, path: str, *, method: str = "GET", **headers: str) -> Reply:
    """Sends a request as it is written; `_` in names of headers stands for `-`."""
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=sent)
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, names, response.read())
    finally:
        connection.close()


def call(
    application: WSGIApplication, path: str, query: str = "", *, method: str = "GET", **headers: str
) -> Reply:
    """What an application answers; every rule of WSGI is kept."""
    environ: WSGIEnvironment = {"PATH_INFO": path, "QUERY_STRING": query, "SCRIPT_NAME": ""}
    environ["REQUEST_METHOD"] = method
    environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    setup_testing_defaults(environ)
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, sent: list[tuple[str, str]], _: object = None) -> Any:
        started.append((status, sent))
        return lambda _: None

    body = validator(application)(environ, start_response)
    content = b"".join(body)
    body.close()  # type: ignore[attr-defined]  # the validator's has it
    ((status, sent),) = started
    return Reply(int(status.split()[0]), {name.lower(): value for name, value in sent}, content)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")
