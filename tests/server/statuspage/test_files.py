"""The page's own files: served as they are, and nothing else."""

from __future__ import annotations

import mimetypes
from pathlib import Path

import pytest
from api_requests import ask, call
from hypothesis import example, given
from hypothesis import strategies as st

import pathwatch.server.statuspage.files as module
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig
from pathwatch.server.statuspage.files import Files

FOLDER = Path(module.__file__).parent / "static"
NOT_SERVED = {"LICENSE", "README.md"}
SERVED = {
    f"/static/{path.relative_to(FOLDER).as_posix()}": path
    for path in FOLDER.rglob("*")
    if path.is_file() and path.name not in NOT_SERVED
}
files = Files()


@pytest.mark.parametrize("path", sorted(SERVED))
def test_every_file_is_served(path: str) -> None:
    reply = call(files, path)
    assert (reply.status, reply.content) == (200, SERVED[path].read_bytes())
    kind = reply.headers["content-type"]
    assert kind.partition(";")[0] == mimetypes.guess_type(path)[0]
    assert ("charset=utf-8" in kind) == kind.startswith("text/")
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.headers["cache-control"] == "no-cache"
    again = call(files, path, if_none_match=reply.headers["etag"])
    assert (again.status, again.content) == (304, b"")


def test_the_page() -> None:
    reply = call(files, "/")
    assert reply.content == (FOLDER / "index.html").read_bytes()
    policy = dict(each.strip().split(" ", 1) for each in reply.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    for forbidden in ("base-uri", "form-action", "frame-ancestors"):
        assert policy[forbidden] == "'none'"
    assert "unsafe" not in reply.headers["content-security-policy"]
    assert call(files, "/", method="HEAD").headers == reply.headers


@pytest.mark.parametrize(
    "path",
    [
        "/static",
        "/static/",
        "/static/js",
        "/static/js/",
        "/static//index.html",
        "/static/../routes.py",
        "/static/./index.html",
        "/static/js/../index.html",
        "/static/..\\routes.py",
        "/static/vendor/uplot/LICENSE",
        "//etc/passwd",
        "/static//etc/passwd",
        "/static/index.html\x00.js",
        "/static/INDEX.HTML",
    ],
)
def test_what_is_not_served(path: str) -> None:
    assert call(files, path).status == 404


@given(st.text().map(lambda text: text.encode("utf-8", "surrogatepass").decode("latin-1")))
@example("index.html")
def test_nothing_but_the_files(rest: str) -> None:
    assert call(files, f"/static/{rest}").status == (200 if f"/static/{rest}" in SERVED else 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_files_are_only_read(method: str) -> None:
    reply = call(files, "/", method=method)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path",
    ["/static/../../api.py", "/static/%2e%2e/routes.py", "/static/..%2froutes.py", "/static/%00", "/%2e%2e/"],
)
def test_paths_as_they_come_over_the_wire(tmp_path: Path, path: str) -> None:
    with BackgroundServer(ServerConfig(data=tmp_path)) as server:
        assert ask(server.http_address, path).status == 404
