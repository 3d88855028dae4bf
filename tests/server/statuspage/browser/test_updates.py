"""The page follows the run without being loaded again, whatever becomes of run and server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from browser import Tab
from page_reading import card, chart, drawn_points, field, row, text
from playwright.sync_api import Page, expect
from recorded_run import RecordedRun, made_up, recorded
from serving import Serving

from pathwatch.client import Client
from pathwatch.server.app import BackgroundServer

pytestmark = pytest.mark.slow

OpenTab = Callable[..., Tab]
Serve = Callable[..., Serving]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts servers on the data of the test, one after the other."""
    with ExitStack() as closing:

        def start(**addresses: str) -> Serving:
            server = Serving(tmp_path / "data", tmp_path / "log", **addresses)
            closing.callback(server.kill)
            return server

        yield start


def mark(page: Page) -> None:
    """The document, so that another one would be known."""
    page.evaluate("document.pathwatchMark = 'the same'")


def assert_same_document(page: Page) -> None:
    assert page.evaluate("document.pathwatchMark") == "the same"


def test_later_steps_arrive(open_tab: OpenTab, live_server: BackgroundServer, half_way: RecordedRun) -> None:
    tab = open_tab(live_server.http_address)
    page = tab.open("/#/runs/live")
    before = drawn_points(chart(page, "train_loss"))
    assert text(card(page, "sub:0.6"), "phase") == "MEMORIZED"
    mark(page)
    whole = len(tab.asked("/api/v1/runs/live/series"))

    half_way.play(10)

    expect(field(card(page, "sub:0.6"), "phase")).to_have_text("GENERALIZING")
    with Client(live_server.grpc_address) as client:
        newest = client.get_run("live").step
    expect(field(page, "step")).to_contain_text(str(newest))
    page.wait_for_function(
        "([figure, before]) => Number(figure.dataset.points) === before + 20",
        arg=[chart(page, "train_loss").element_handle(), before],
    )
    segments = page.locator('[data-timeline="sub:0.6"] [data-phase="GENERALIZING"]')
    expect(segments).to_have_count(1)
    assert_same_document(page)
    later = tab.asked("/api/v1/runs/live/series")[whole:]
    assert later
    assert all("after_step=" in request.url for request in later), [request.url for request in later]


def test_the_list_follows_too(
    open_tab: OpenTab, live_server: BackgroundServer, half_way: RecordedRun
) -> None:
    page = open_tab(live_server.http_address).open()
    expect(row(page, "live")).to_be_visible()
    mark(page)
    half_way.play(1)
    expect(field(row(page, "live"), "step")).to_contain_text("750")
    with RecordedRun(live_server.grpc_address, "newer", made_up(2, 1)) as newer:
        newer.play()
        expect(row(page, "newer")).to_be_visible()
        newer.finish()
    expect(field(row(page, "newer"), "state")).to_have_text("finished", ignore_case=True)
    assert_same_document(page)


def test_a_rewound_run_is_drawn_anew(
    open_tab: OpenTab, live_server: BackgroundServer, half_way: RecordedRun
) -> None:
    page = open_tab(live_server.http_address).open("/#/runs/live")
    assert drawn_points(chart(page, "train_loss")) == 30
    with RecordedRun(live_server.grpc_address, "live", recorded("ol_pair_s0"), attempt=1, first=10) as again:
        again.play(2)
        page.wait_for_function(
            "figure => Number(figure.dataset.points) === 24",
            arg=chart(page, "train_loss").element_handle(),
        )
        expect(field(page, "step")).to_contain_text("550")


def test_a_deleted_run_is_said_to_be_gone(
    open_tab: OpenTab, live_server: BackgroundServer, half_way: RecordedRun
) -> None:
    tab = open_tab(live_server.http_address)
    tab.allow("404")
    page = tab.open("/#/runs/live")
    expect(field(page, "action")).to_be_visible()
    with Client(live_server.grpc_address) as client:
        client.delete_run("live")
    expect(page.locator("[data-group]:visible")).to_have_count(0)
    expect(page.get_by_role("main")).to_contain_text("no run of this name")
    page.get_by_role("main").get_by_role("link").first.click()
    expect(page).to_have_url(f"{tab.origin}/#/")
    expect(page.locator('[data-run="live"]')).to_have_count(0)


def test_it_finds_its_server_again(open_tab: OpenTab, serve: Serve) -> None:
    first = serve()
    with RecordedRun(first.address, "live", recorded("text_c_s0")) as run:
        run.play(3)
        tab = open_tab(first.http)
        tab.allow("ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET")
        page = tab.open("/#/runs/live")
        expect(field(page, "connection")).to_have_text("live")
        before = drawn_points(chart(page, "train_loss"))
        mark(page)

        first.kill()
        expect(field(page, "connection")).to_have_text("reconnecting")
        assert text(page, "action").upper() == "CONTINUE", "what was known stays to be seen"
        second = serve(listen=first.address, http=first.http)
        expect(field(page, "connection")).to_have_text("live")
        run.play(2)
        page.wait_for_function(
            "([figure, before]) => Number(figure.dataset.points) === before + 8",
            arg=[chart(page, "train_loss").element_handle(), before],
        )
        assert_same_document(page)
        second.stop()


def test_silence_is_told(open_tab: OpenTab, live_server: BackgroundServer) -> None:
    """Nothing happens on the server then: time alone makes a signal stale."""
    with RecordedRun(live_server.grpc_address, "silent", recorded("text_c_s0"), grace_seconds=2) as run:
        run.play(4)
        page = open_tab(live_server.http_address).open("/#/runs/silent")
        freshness = page.locator('[data-health="freshness"]')
        expect(freshness).to_have_attribute("data-state", "bad")
        expect(field(card(page, "py"), "phase")).to_have_text("UNKNOWN")
        assert text(page, "action").upper() == "CONTINUE"
        run.play(1)
        expect(freshness).to_have_attribute("data-state", "ok")


def test_leaving_a_run_ends_its_requests(
    open_tab: OpenTab, live_server: BackgroundServer, half_way: RecordedRun
) -> None:
    tab = open_tab(live_server.http_address)
    page = tab.open("/#/runs/live")
    drawn_points(chart(page, "train_loss"))
    page.get_by_role("link", name="Runs").first.click()
    expect(row(page, "live")).to_be_visible()
    asked = len(tab.asked("/api/v1/runs/live"))
    for _ in range(2):
        with page.expect_response(lambda response: response.url.endswith("/api/v1/runs")):
            pass
    assert len(tab.asked("/api/v1/runs/live")) == asked


def test_watching_costs_few_small_requests(
    open_tab: OpenTab, live_server: BackgroundServer, half_way: RecordedRun
) -> None:
    """Nothing is fetched again that is known, and the document does not grow while nothing happens."""
    tab = open_tab(live_server.http_address)
    page = tab.open("/#/runs/live")
    drawn_points(chart(page, "train_loss"))
    page.wait_for_load_state("networkidle")
    polled = lambda response: response.url.endswith("/api/v1/runs/live")  # noqa: E731
    with page.expect_response(polled):
        pass
    nodes, asked = page.locator("*").count(), len(tab.asked("/"))
    for _ in range(3):
        with page.expect_response(polled):
            pass
    assert len(tab.asked("/")) - asked <= 3 * 4
    assert page.locator("*").count() <= nodes
    answers = [request.response() for request in tab.asked("/")[asked:]]
    assert (
        sum(len(answer.body()) for answer in answers if answer is not None and answer.status == 200) < 20_000
    )


def test_what_the_reader_does_is_not_undone(
    open_tab: OpenTab, live_server: BackgroundServer, half_way: RecordedRun
) -> None:
    """Focus, opened details and the scroll position outlast an update."""
    page = open_tab(live_server.http_address).open("/#/runs/live")
    details = card(page, "add:0.6").locator("details").first
    details.locator("summary").click()
    expect(details).to_have_attribute("open", "")
    page.evaluate("document.pathwatchFocus = document.activeElement")
    assert page.evaluate("document.activeElement !== document.body")
    page.mouse.wheel(0, 300)
    page.wait_for_function("scrollY > 0")
    at = page.evaluate("scrollY")
    half_way.play(1)
    expect(field(page, "step")).to_contain_text("750")
    assert page.evaluate("document.activeElement === document.pathwatchFocus")
    expect(details).to_have_attribute("open", "")
    assert abs(page.evaluate("scrollY") - at) < 40
