"""Names and reasons come from whoever sends data: they are text, wherever they stand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from browser import Tab
from page_reading import card, chart, drawn_points, row
from playwright.sync_api import expect
from recorded_run import RecordedRun, made_up

from pathwatch.client import Client
from pathwatch.server.app import BackgroundServer

pytestmark = pytest.mark.tools

OpenTab = Callable[..., Tab]
GROUPS = (
    "<img src=x onerror=alert(1)>",
    "__proto__",
    "a\"b'c&amp;d\\e",
    "\u05d0\u05d1 \u0645\u0631\u062d\u0628\u0627 (right to left)",
    "x" * 60 + "\u00fc" * 4,
    "](javascript:alert(2))",
)
TAG = "<svg onload=alert(3)>"


@pytest.fixture
def hostile(live_server: BackgroundServer) -> BackgroundServer:
    """With a run whose groups and checkpoints are named so."""
    with RecordedRun(live_server.grpc_address, "constructor", made_up(4, 1, groups=GROUPS)) as run:
        run.play()
    with Client(live_server.grpc_address) as client:
        client.register_checkpoint("constructor", step=75, tag=TAG)
    return live_server


@pytest.mark.parametrize("width", [1280, 320])
def test_names_are_text(open_tab: OpenTab, hostile: BackgroundServer, width: int) -> None:
    page = open_tab(hostile.http_address, viewport={"width": width, "height": 800}).open()
    listed = row(page, "constructor")
    expect(listed).to_contain_text("__proto__")
    titles = listed.locator("[title]").evaluate_all("found => found.map(each => each.title)")
    for group in GROUPS:
        assert any(group in title for title in titles)
    page.goto("/#/runs/constructor")
    expect(page.locator("[data-group]")).to_have_count(len(GROUPS))
    for group in GROUPS:
        assert group in (card(page, group).text_content() or "")
    assert drawn_points(chart(page, "train_loss")) == 4 * len(GROUPS)
    expect(page.get_by_role("main")).to_contain_text(TAG)  # checkpoints come after the charts
    assert page.locator("main img, main svg[onload], main [onerror], main a[href^='javascript']").count() == 0
    assert page.evaluate("({}).step") is None
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_groups_that_come_later_may_have_any_name(open_tab: OpenTab, live_server: BackgroundServer) -> None:
    names = ("a", "constructor", "__proto__", "toString")
    with RecordedRun(live_server.grpc_address, "later", made_up(5, 1, groups=names[:1])) as run:
        run.play(2)
        page = open_tab(live_server.http_address).open("/#/runs/later")
        figure = chart(page, "train_loss")
        assert drawn_points(figure) == 2
    with RecordedRun(live_server.grpc_address, "later", made_up(5, 1, groups=names), first=2) as run:
        run.play()
    expect(figure).to_have_attribute("data-points", str(2 + 3 * len(names)))
    for name in names:
        assert card(page, name).is_visible()
    expect(page.locator("[data-timeline]")).to_have_count(len(names))


@pytest.mark.parametrize(
    "path",
    [
        "/#/runs/%3Cimg%20src=x%20onerror=alert(4)%3E",
        "/#/runs/..%2F..%2Fmetrics",
        "/#/runs/%E0%A4%A",
        "/#/compare/constructor",
        "/#/compare/constructor/%3Cscript%3E",
        "/#//elsewhere.example/",
        "/#javascript:alert(5)",
        "/?token=abc#/runs/",
    ],
)
def test_addresses_are_not_believed(open_tab: OpenTab, hostile: BackgroundServer, path: str) -> None:
    tab = open_tab(hostile.http_address)
    tab.allow("40[04]")
    page = tab.open(path)
    expect(page.get_by_role("main")).not_to_be_empty()
    expect(page.get_by_role("main").get_by_role("link").first).to_be_visible()
    assert page.locator("main img, main script").count() == 0
    for request in tab.asked("/"):
        assert request.url.removeprefix(tab.origin).startswith(("/api/v1/", "/static/", "/?", "/"))
        assert "/metrics" not in request.url


def test_script_from_elsewhere_does_not_run(open_tab: OpenTab, hostile: BackgroundServer) -> None:
    """What an injection would try, were there one: the policy stands behind the page."""
    tab = open_tab(hostile.http_address)
    tab.allow("Content Security Policy|elsewhere.example|data:")
    page = tab.open()
    expect(row(page, "constructor")).to_be_visible()
    page.evaluate(
        """() => {
          window.ran = [];
          const add = (name, properties) => document.body.append(
            Object.assign(document.createElement(name), properties));
          add("script", {textContent: "window.ran.push('inline')"});
          add("script", {src: "http://elsewhere.example/a.js"});
          add("script", {src: "data:text/javascript,window.ran.push('data')"});
          add("iframe", {srcdoc: "<script>parent.ran.push('frame')</script>"});
          const image = document.createElement("div");
          image.innerHTML = "<img src=data: onerror=\\"window.ran.push('handler')\\">";
          document.body.append(image);
          // Later: what the test itself evaluates may evaluate.
          setTimeout(() => window.ran.push(eval("'eval'")));
          return fetch("http://elsewhere.example/").then(() => window.ran.push("fetch"), () => null);
        }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.ran") == []
