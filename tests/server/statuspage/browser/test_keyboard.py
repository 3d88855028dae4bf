"""Everything can be reached and done with the keyboard alone, and one sees where one is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from browser import Tab
from page_reading import chart, drawn_points, field, row, wait_for_all
from playwright.sync_api import Page, expect

from pathwatch.server.app import BackgroundServer

pytestmark = pytest.mark.tools

OpenTab = Callable[..., Tab]
REACHABLE = """() => {
  const wanted = "a[href], button, input, select, textarea, summary, [tabindex='0']";
  window.reachable = [...document.querySelectorAll(wanted)].filter(element =>
    !element.disabled && element.tabIndex >= 0 && element.checkVisibility({visibilityProperty: true}));
  return window.reachable.length;
}"""
FOCUSED = """() => {
  const element = document.activeElement;
  const style = getComputedStyle(element);
  const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
  const ring = outlined || style.boxShadow !== "none";
  const box = element.getBoundingClientRect();
  return {
    at: window.reachable.indexOf(element),
    label: `${element.tagName} ${element.textContent.slice(0, 40)} ${element.id}`,
    ring, outside: element === document.body,
    inView: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
  };
}"""


def walk(page: Page) -> list[dict[str, Any]]:
    """Every place that Tab leads to from the top of the page to its end."""
    count = page.evaluate(REACHABLE)
    places = []
    for _ in range(count + 5):
        page.keyboard.press("Tab")
        place = page.evaluate(FOCUSED)
        if place["outside"] or (places and place["at"] == places[0]["at"]):
            break
        places.append(place)
    return places


@pytest.mark.parametrize("path", ["/#/", "/#/runs/text", "/#/compare/pair/other"])
def test_tab_leads_everywhere_in_order(
    open_tab: OpenTab, recorded_server: BackgroundServer, path: str
) -> None:
    page = open_tab(recorded_server.http_address).open(path)
    if path == "/#/":
        expect(row(page, "text")).to_be_visible()
    else:
        wait_for_all(page)
    page.evaluate("scrollTo(0, 0)")
    places = walk(page)
    assert places[0]["label"].startswith("A Skip"), places[0]
    order = [place["at"] for place in places]
    assert -1 not in order, [place["label"] for place in places if place["at"] == -1]
    assert order == sorted(order)
    missed = sorted(set(range(page.evaluate("window.reachable.length"))) - set(order))
    # Of a set of radio buttons Tab leads to one alone, arrows to the others.
    unreached = """missed => missed.map(at => window.reachable[at])
      .filter(element => element.type !== "radio").map(element => element.outerHTML)"""
    assert page.evaluate(unreached, missed) == []
    assert [place["label"] for place in places if not place["ring"]] == []
    assert [place["label"] for place in places if not place["inView"]] == []


def test_the_skip_link_skips(open_tab: OpenTab, recorded_server: BackgroundServer) -> None:
    page = open_tab(recorded_server.http_address).open("/#/runs/pair")
    expect(field(page, "action")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "MAIN"
    expect(field(page, "action")).to_be_visible()


def test_a_run_is_found_and_opened_by_keyboard(open_tab: OpenTab, fleet_server: BackgroundServer) -> None:
    page = open_tab(fleet_server.http_address).open()
    expect(page.locator("[data-run]")).to_have_count(50)
    page.locator('[data-action="filter"]').focus()
    page.keyboard.type("run-07")
    expect(page.locator("[data-run]:visible")).to_have_count(1)
    row(page, "run-07").get_by_role("link").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="run-07", level=1)).to_be_visible()
    assert page.title().startswith("run-07")


def test_a_chart_says_its_values_to_the_keyboard(
    open_tab: OpenTab, recorded_server: BackgroundServer
) -> None:
    page = open_tab(recorded_server.http_address).open("/#/runs/pair")
    figure = chart(page, "train_loss")
    drawn_points(figure)
    figure.locator("[tabindex='0']").first.focus()
    said = set()
    for key in ("End", "ArrowLeft", "ArrowLeft", "Home", "ArrowRight"):
        page.keyboard.press(key)
        page.wait_for_timeout(50)
        said.add(figure.inner_text())
    assert len(said) >= 4, said
