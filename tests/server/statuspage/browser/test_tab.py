"""The tests of the page rest on `Tab`: it must notice whatever a user should never see."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from browser import Tab
from playwright.sync_api import Browser

pytestmark = pytest.mark.tools

PAGES = {
    "/good": "<script src='/ok.js'></script>",
    "/ok.js": "document.title = 'ok'",
    "/console": "<script src='/console.js'></script>",
    "/console.js": "console.warn('beware')",
    "/raises": "<script src='/raises.js'></script>",
    "/raises.js": "setTimeout(() => { throw new Error('broken') })",
    "/asks": "<script src='/asks.js'></script>",
    "/asks.js": "setTimeout(() => alert('well?'))",
    "/missing": "<script src='/nowhere.js'></script>",
    "/inline": "<script>document.title = 'bad'</script>",
    "/style": "<p style='color: red'>red</p>",
    "/elsewhere": "<script src='/elsewhere.js'></script>",
    "/elsewhere.js": "fetch('http://elsewhere.example/').catch(() => {})",
}


class Handler(BaseHTTPRequestHandler):
    """Serves PAGES under a strict policy."""

    def do_GET(self) -> None:
        content = PAGES.get(self.path)
        self.send_response(200 if content is not None or self.path == "/favicon.ico" else 404)
        self.send_header("Content-Type", "text/javascript" if self.path.endswith(".js") else "text/html")
        if self.path != "/elsewhere":
            self.send_header("Content-Security-Policy", "default-src 'self'")
        self.end_headers()
        self.wfile.write((content or "").encode())

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/console", "console warning: beware"),
        ("/raises", "error: broken"),
        ("/asks", "dialog: well?"),
        ("/missing", "status 404: "),
        ("/inline", "Content Security Policy"),
        ("/style", "Content Security Policy"),
        ("/elsewhere", "request to another host: http://elsewhere.example/"),
    ],
)
def test_a_problem_is_noticed(browser: Browser, site: str, path: str, problem: str) -> None:
    tab = Tab(browser, site)
    tab.open(path)
    deadline = time.monotonic() + 60
    while not any(problem in said for said in tab.problems):
        assert time.monotonic() < deadline, tab.problems
        tab.page.wait_for_timeout(20)
    tab.allow(".")
    assert tab.problems == []
    tab.close()


def test_a_good_page_has_none(browser: Browser, site: str) -> None:
    tab = Tab(browser, site)
    assert tab.open("/good").title() == "ok"
    tab.page.wait_for_load_state("networkidle")
    assert tab.problems == []
    assert [request.url.removeprefix(tab.origin) for request in tab.requests][:2] == ["/good", "/ok.js"]
    tab.close()
