"""Two runs on common axes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from browser import Tab
from page_reading import chart, colours, drawn_points, row, text
from playwright.sync_api import expect

from pathwatch.client import Client
from pathwatch.server.app import BackgroundServer

pytestmark = pytest.mark.slow

OpenTab = Callable[..., Tab]


def test_both_runs_are_drawn(open_tab: OpenTab, recorded_server: BackgroundServer, client: Client) -> None:
    page = open_tab(recorded_server.http_address).open("/#/compare/pair/other")
    figure = chart(page, "train_loss")
    for run in ("pair", "other"):
        expect(page.get_by_role("heading", name=run)).to_be_visible()
        assert text(row(page, run), "reason") == client.get_signal(run).reason
    numbers = {
        run: sum("train_loss" in window.metrics for window in client.get_metrics(run).windows)
        for run in ("pair", "other")
    }
    # Of the first group alone: both have two, with as many windows each.
    assert drawn_points(figure) == sum(numbers.values()) // 2
    assert len([colour for colour, pixels in colours(figure).items() if pixels >= 20]) >= 2


def test_runs_are_chosen_on_the_page(open_tab: OpenTab, recorded_server: BackgroundServer) -> None:
    page = open_tab(recorded_server.http_address).open("/#/runs/pair")
    page.get_by_label("Compare with").select_option("other")
    expect(page).to_have_url(f"http://{recorded_server.http_address}/#/compare/pair/other")
    drawn_points(chart(page, "path_distance"))
    page.get_by_label("Group", exact=True).select_option("sub:0.6")
    expect(row(page, "pair")).to_have_attribute("data-group", "sub:0.6")
    page.get_by_role("link", name="Runs").first.click()
    expect(row(page, "pair")).to_be_visible()


def test_runs_without_common_groups(open_tab: OpenTab, recorded_server: BackgroundServer) -> None:
    page = open_tab(recorded_server.http_address).open("/#/compare/pair/text")
    expect(page.get_by_role("main")).to_contain_text("text has no group of this name")


def test_one_of_them_is_unknown(open_tab: OpenTab, recorded_server: BackgroundServer) -> None:
    tab = open_tab(recorded_server.http_address)
    tab.allow("404")
    page = tab.open("/#/compare/pair/nobody")
    expect(page.get_by_role("main")).to_contain_text("nobody")
