"""The list of runs says what the gRPC API says, of all runs, and stays light with many."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from browser import Tab
from page_reading import field, row, text, whole_number
from playwright.sync_api import expect

from pathwatch.client import Client
from pathwatch.server.app import BackgroundServer
from pathwatch.v1 import run_pb2, signal_pb2

pytestmark = pytest.mark.tools

OpenTab = Callable[..., Tab]
POLL_MILLISECONDS = 2000
NODES_PER_RUN = 80
"""Of the document, in the list."""


def test_every_run_is_listed_as_the_api_has_it(
    open_tab: OpenTab, recorded_server: BackgroundServer, client: Client
) -> None:
    page = open_tab(recorded_server.http_address).open()
    runs = client.list_runs()
    expect(page.locator("[data-run]")).to_have_count(len(runs))
    for run in runs:
        listed, signal = row(page, run.name), client.get_signal(run.name)
        assert text(listed, "action").upper() == signal_pb2.Action.Name(signal.action).removeprefix("ACTION_")
        assert text(listed, "reason") == signal.reason
        assert (
            text(listed, "state").lower()
            == run_pb2.RunState.Name(run.state).removeprefix("RUN_STATE_").lower()
        )
        assert whole_number(text(listed, "step")) == run.step
        assert whole_number(text(listed, "best-checkpoint")) == signal.best_checkpoint_step
        for group in signal.groups:
            assert group.group in listed.inner_text()


def test_a_run_is_opened_from_the_list(open_tab: OpenTab, recorded_server: BackgroundServer) -> None:
    page = open_tab(recorded_server.http_address).open()
    row(page, "pair").get_by_role("link", name="pair").first.click()
    expect(page).to_have_url(f"http://{recorded_server.http_address}/#/runs/pair")
    expect(page.get_by_role("heading", name="pair", level=1)).to_be_visible()
    page.go_back()
    expect(row(page, "text")).to_be_visible()


def test_the_filter_leaves_what_it_matches(open_tab: OpenTab, fleet_server: BackgroundServer) -> None:
    page = open_tab(fleet_server.http_address).open()
    expect(page.locator("[data-run]:visible")).to_have_count(50)
    box = page.locator('[data-action="filter"]')
    box.fill("run-1")
    expect(page.locator("[data-run]:visible")).to_have_count(10)
    box.fill("no such run")
    expect(page.locator("[data-run]:visible")).to_have_count(0)
    box.fill("")
    expect(page.locator("[data-run]:visible")).to_have_count(50)


def test_an_empty_server_says_what_to_do(open_tab: OpenTab, live_server: BackgroundServer) -> None:
    page = open_tab(live_server.http_address).open()
    expect(field(page, "connection")).to_have_text("live")
    expect(page.locator("[data-run]")).to_have_count(0)
    expect(page.get_by_role("main")).to_contain_text("run")


def test_fifty_runs_cost_one_conditional_request_a_poll(
    open_tab: OpenTab, fleet_server: BackgroundServer
) -> None:
    tab = open_tab(fleet_server.http_address)
    page = tab.open()
    expect(page.locator("[data-run]")).to_have_count(50)
    statuses: list[int] = []
    while statuses[-3:] != [304] * 3:
        assert len(statuses) < 30, statuses  # now and then a run has gone stale: that is news
        with page.expect_response(lambda response: "/api/v1/runs" in response.url) as answered:
            pass
        assert "if-none-match" in answered.value.request.all_headers()
        statuses.append(answered.value.status)
    assert {request.url for request in tab.asked("/api/")} == {f"{tab.origin}/api/v1/runs"}
    assert page.locator("body *").count() < 50 * NODES_PER_RUN
