"""Two runs on common axes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from browser import Tab
from page_reading import as_json, chart, colours, drawn_points, row, table_column, text
from playwright.sync_api import expect
from recorded_run import RecordedRun, made_up

from pathwatch.client import Client
from pathwatch.server.app import BackgroundServer

pytestmark = pytest.mark.tools

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


def test_a_run_made_anew_is_drawn_anew(open_tab: OpenTab, live_server: BackgroundServer) -> None:
    """Even where it is as far as the one of the same name was."""
    for name, seed in (("a", 1), ("b", 2)):
        with RecordedRun(live_server.grpc_address, name, made_up(6, seed)) as run:
            run.play()
    tab = open_tab(live_server.http_address)
    tab.allow("ERR_FAILED|404")  # what was asked before the page was cut off may be answered late
    page = tab.open("/#/compare/a/b")
    figure = chart(page, "train_loss")
    drawn_points(figure)
    before = table_column(figure)
    page.route("**/api/**", lambda route: route.abort())
    with Client(live_server.grpc_address) as client:
        client.delete_run("a")
    with RecordedRun(live_server.grpc_address, "a", made_up(6, 3)) as run:
        run.play()
    page.unroute("**/api/**")
    expect(figure.locator("tbody tr td").first).not_to_have_text(str(before[125]))
    code = as_json(page, "runs/a/series", metrics="train_loss")["groups"]["code"]
    assert table_column(figure) == pytest.approx(
        dict(zip(code["step"], code["metrics"]["train_loss"], strict=True)), rel=1e-5
    )
