"""A real Chromium, and pages that tell what a user should never see."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    Response,
    expect,
    sync_playwright,
)

PATIENCE_MILLISECONDS = 60_000
expect.set_options(timeout=PATIENCE_MILLISECONDS)
_OPTIONS = (
    # As root in a container, without a graphics card.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    # Nothing but the page talks to anybody: of other hosts not even the name is looked up.
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    # Pictures and colours do not depend on the machine.
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium without a window; offline but for this machine.

    While it runs no event loop can be started in this thread (Playwright has one of its own there): enter it
    for a module of tests at most.
    """
    path = shutil.which("chromium")
    assert path is not None, "chromium is not installed: make debian"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=list(_OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page of one server in a browser profile of its own, and what went wrong in it."""

    def __init__(self, browser: Browser, address: str, **options: Any) -> None:
        """`address` is HOST:PORT; options are those of `Browser.new_context`."""
        self.origin = f"http://{address}"
        self.requests: list[Request] = []
        """All that it asked for."""
        self._problems: list[str] = []
        self._allowed: list[str] = []
        self.context = browser.new_context(base_url=self.origin, **options)
        self.context.set_default_timeout(PATIENCE_MILLISECONDS)
        self.context.on("console", self._hear)
        self.context.on("weberror", lambda error: self._problems.append(f"error: {error.error}"))
        self.context.on("request", self._see_request)
        self.context.on("requestfailed", self._see_failure)
        self.context.on("response", self._see_response)
        self.context.on("dialog", self._see_dialog)
        self.page: Page = self.context.new_page()

    def open(self, path: str = "/#/") -> Page:
        """Go to a path of the server, and wait for the page to be there."""
        self.page.goto(path)
        return self.page

    def allow(self, pattern: str) -> None:
        """What matches it is no problem of this tab: a test provokes it."""
        self._allowed.append(pattern)

    @property
    def problems(self) -> list[str]:
        """Errors and warnings of the console (violations of the content security policy are such),
        exceptions, dialogs, failed requests, requests to other hosts."""
        return [said for said in self._problems if not any(re.search(rule, said) for rule in self._allowed)]

    def asked(self, path: str) -> list[Request]:
        """Requests for paths that begin so."""
        return [request for request in self.requests if request.url.startswith(self.origin + path)]

    def close(self) -> None:
        """Nothing is heard from then on."""
        self.context.close()

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            where = message.location.get("url", "")
            self._problems.append(f"console {message.type}: {message.text} ({where})")

    def _see_dialog(self, dialog: Dialog) -> None:
        self._problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _see_request(self, request: Request) -> None:
        self.requests.append(request)
        if not request.url.startswith((self.origin + "/", "data:", "blob:")):
            self._problems.append(f"request to another host: {request.url}")

    def _see_failure(self, request: Request) -> None:
        # The page itself gives up requests whose answers it no longer needs.
        if request.failure != "net::ERR_ABORTED":
            self._problems.append(f"request failed: {request.method} {request.url}: {request.failure}")

    def _see_response(self, response: Response) -> None:
        if response.status >= 400:
            self._problems.append(f"status {response.status}: {response.url}")
