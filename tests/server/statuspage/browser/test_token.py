"""Where tokens are configured the page asks for one, and keeps it where nobody else finds it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from browser import Tab
from page_reading import field, row
from playwright.sync_api import Page, expect
from recorded_run import RecordedRun, made_up

from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig

pytestmark = pytest.mark.tools

OpenTab = Callable[..., Tab]
SECRET = "pw-read-4711"  # noqa: S105 (of this test)
OTHER = "pw-ingest-4711"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[BackgroundServer]:
    """A server whose HTTP side wants a token; with one run."""
    tokens = tmp_path / "tokens.yaml"
    entries = [
        {"name": "reader", "sha256": hashlib.sha256(SECRET.encode()).hexdigest(), "scopes": ["read"]},
        {"name": "job", "sha256": hashlib.sha256(OTHER.encode()).hexdigest(), "scopes": ["ingest"]},
    ]
    tokens.write_text(yaml.safe_dump(entries))
    with BackgroundServer(ServerConfig(data=tmp_path / "data", http_tokens=tokens)) as server:
        with RecordedRun(server.grpc_address, "secret-run", made_up(3, 1)) as run:
            run.play()
        yield server


@pytest.fixture
def tab(open_tab: OpenTab, guarded: BackgroundServer) -> Tab:
    """One that is turned away at first."""
    tab = open_tab(guarded.http_address)
    tab.allow("40[13]")
    return tab


def give(page: Page, secret: str) -> None:
    form = page.locator('form[data-form="token"]')
    form.locator("input[type=password]").fill(secret)
    form.get_by_role("button").first.click()


def test_without_a_token_nothing_is_shown(tab: Tab) -> None:
    page = tab.open("/#/runs/secret-run")
    expect(page.locator('form[data-form="token"]')).to_be_visible()
    assert "secret-run" not in page.get_by_role("main").inner_text().replace("#/runs/secret-run", "")


@pytest.mark.parametrize("wrong", ["nonsense", OTHER, "späße", "✓"])
def test_a_wrong_token_is_said_to_be_wrong(tab: Tab, wrong: str) -> None:
    page = tab.open()
    give(page, wrong)
    expect(page.locator('form[data-form="token"]').get_by_role("alert")).to_be_visible()
    expect(page.locator("[data-run]")).to_have_count(0)
    give(page, SECRET)
    expect(row(page, "secret-run")).to_be_visible()


def test_the_right_token_opens_the_page_that_was_asked_for(tab: Tab) -> None:
    page = tab.open("/#/runs/secret-run")
    give(page, SECRET)
    expect(field(page, "action")).to_be_visible()
    page.reload()
    expect(field(page, "action")).to_be_visible()
    assert page.locator('form[data-form="token"]').count() == 0


def test_it_goes_nowhere_but_into_the_header(tab: Tab) -> None:
    page = tab.open()
    give(page, SECRET)
    expect(row(page, "secret-run")).to_be_visible()
    page.locator('[data-action="theme"]').click()
    assert SECRET not in page.url
    assert page.evaluate("JSON.stringify(localStorage)").count(SECRET) == 0
    assert page.evaluate("document.cookie") == ""
    assert SECRET not in page.content()
    assert not [request.url for request in tab.requests if SECRET in request.url]
    carrying = [r for r in tab.requests if SECRET in r.headers.get("authorization", "")]
    assert carrying
    assert all(request.url.startswith(f"{tab.origin}/api/") for request in carrying)


def test_it_can_be_forgotten(tab: Tab) -> None:
    page = tab.open()
    give(page, SECRET)
    expect(row(page, "secret-run")).to_be_visible()
    page.locator('[data-action="forget-token"]').click()
    expect(page.locator('form[data-form="token"]')).to_be_visible()
    expect(page.locator("[data-run]")).to_have_count(0)
    assert SECRET not in page.evaluate("JSON.stringify(sessionStorage)")
    page.reload()
    expect(page.locator('form[data-form="token"]')).to_be_visible()


def test_another_tab_has_to_ask_again(tab: Tab) -> None:
    page = tab.open()
    give(page, SECRET)
    expect(row(page, "secret-run")).to_be_visible()
    other = tab.context.new_page()
    other.goto("/#/")
    expect(other.locator('form[data-form="token"]')).to_be_visible()
