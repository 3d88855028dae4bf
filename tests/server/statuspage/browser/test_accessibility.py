"""axe-core finds nothing, in both themes, wide and narrow; no sideways scrolling; nothing moves unasked."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import Tab
from page_reading import chart, drawn_points, field, row, wait_for_all
from playwright.sync_api import Page, expect

from pathwatch.server.app import BackgroundServer

pytestmark = pytest.mark.tools

OpenTab = Callable[..., Tab]
PATHS = ("/#/", "/#/runs/text", "/#/runs/pair", "/#/compare/pair/other")
WIDTHS = (1920, 768, 390, 320)
BEYOND = """width => [...document.querySelectorAll("main *, header *")].filter(element => {
  if (!element.checkVisibility() || element.getBoundingClientRect().right <= width + 1) return false;
  // What scrolls or is cut off within the page may be wider.
  for (let part = element; part; part = part.parentElement)
    if (getComputedStyle(part).overflowX !== "visible") return false;
  return true;
}).map(element => element.outerHTML.slice(0, 120))"""


def show(page: Page, path: str) -> None:
    """With everything opened that can be; of the charts' long tables the first."""
    page.goto(path)
    if path == "/#/":
        expect(row(page, "text")).to_be_visible()
    else:
        wait_for_all(page)
    page.evaluate(
        """() => {
          const [, ...others] = document.querySelectorAll("figure details");
          for (const each of document.querySelectorAll("details")) each.open = !others.includes(each);
        }"""
    )
    page.wait_for_load_state("networkidle")


@pytest.mark.parametrize("path", PATHS)
def test_axe_finds_nothing(open_tab: OpenTab, recorded_server: BackgroundServer, path: str) -> None:
    page = open_tab(recorded_server.http_address).page
    show(page, path)
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            found = Axe().run(page)
            assert found.violations_count == 0, f"{theme}, {width} px: {found.generate_report()}"


@pytest.mark.parametrize("path", PATHS)
def test_the_page_does_not_scroll_sideways(
    open_tab: OpenTab, recorded_server: BackgroundServer, path: str
) -> None:
    page = open_tab(recorded_server.http_address).page
    show(page, path)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        # Charts follow the width of the window a frame later. A function: the page's policy lets Playwright
        # evaluate text once, not again and again.
        page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width)
        assert page.evaluate(BEYOND, width) == [], f"beyond {width} px"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_theme_is_the_systems_until_one_is_chosen(
    open_tab: OpenTab, recorded_server: BackgroundServer, theme: str
) -> None:
    def is_dark(page: Page) -> bool:
        """Whether letters are lighter than what they stand on."""
        light: list[float] = page.evaluate(
            """() => ["backgroundColor", "color"].map(name => {
              const [r, g, b] = getComputedStyle(document.body)[name].match(/[\\d.]+/g).map(Number);
              return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            })"""
        )
        return light[0] < light[1]

    page = open_tab(recorded_server.http_address, color_scheme=theme).open("/#/runs/pair")
    expect(field(page, "action")).to_be_visible()
    assert is_dark(page) == (theme == "dark")
    button = page.locator('[data-action="theme"]')
    seen = []
    for _ in range(3):
        button.click()
        seen.append((button.inner_text(), is_dark(page)))
    assert [dark for label, dark in seen if "light" in label] == [False]
    assert [dark for label, dark in seen if "dark" in label] == [True]
    assert [dark for label, dark in seen if "auto" in label] == [theme == "dark"]
    opposite = "light" if theme == "dark" else "dark"
    while opposite not in button.inner_text():
        button.click()
    page.reload()
    expect(field(page, "action")).to_be_visible()
    assert is_dark(page) == (opposite == "dark")
    assert opposite in button.inner_text()


def test_nothing_moves_where_motion_is_unwanted(open_tab: OpenTab, recorded_server: BackgroundServer) -> None:
    page = open_tab(recorded_server.http_address, reduced_motion="reduce").open("/#/runs/pair")
    drawn_points(chart(page, "path_distance"))
    moving = page.evaluate(
        """() => [...document.querySelectorAll("*")].filter(element => {
          const style = getComputedStyle(element);
          const seconds = text => Math.max(...text.split(",").map(parseFloat));
          return seconds(style.transitionDuration) > 0.01
            || (style.animationName !== "none" && seconds(style.animationDuration) > 0.01);
        }).map(element => element.outerHTML.slice(0, 120))"""
    )
    assert moving == []
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def test_only_a_change_of_verdict_is_announced(open_tab: OpenTab, recorded_server: BackgroundServer) -> None:
    """Regions that screen readers read out by themselves hold no numbers that change with every poll."""
    page = open_tab(recorded_server.http_address).open("/#/runs/pair")
    drawn_points(chart(page, "path_distance"))
    spoken = page.locator("[aria-live]:not([aria-live=off]), [role=status], [role=alert], [role=log]")
    before = spoken.all_text_contents()
    for _ in range(2):
        with page.expect_response(lambda response: response.url.endswith("/api/v1/runs/pair")):
            pass
    assert spoken.all_text_contents() == before


def test_landmarks_and_headings(open_tab: OpenTab, recorded_server: BackgroundServer) -> None:
    page = open_tab(recorded_server.http_address).open("/#/runs/pair")
    drawn_points(chart(page, "path_distance"))
    for role in ("banner", "main", "contentinfo", "navigation"):
        expect(page.get_by_role(role).first).to_be_attached()
    levels = page.locator("h1, h2, h3, h4, h5, h6").evaluate_all(
        "found => found.filter(e => e.checkVisibility()).map(e => Number(e.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))
    assert page.locator("html").get_attribute("lang") == "en"
