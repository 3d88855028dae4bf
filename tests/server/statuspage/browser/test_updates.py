"""The page follows the run without being loaded again, whatever becomes of run and server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from browser import Tab
from page_reading import (
    as_json,
    card,
    chart,
    drawn_points,
    field,
    picture,
    row,
    table_column,
    text,
    wait_for_all,
    wait_for_another_picture,
)
from playwright.sync_api import Page, Route, expect
from recorded_run import LASTING, RecordedRun, made_up, recorded
from serving import Serving

from pathwatch.client import Client
from pathwatch.server.app import BackgroundServer

pytestmark = pytest.mark.tools

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


def rewound(server: BackgroundServer) -> RecordedRun:
    """The run of `half_way`, gone back to its tenth step."""
    return RecordedRun(
        server.grpc_address, "live", recorded("ol_pair_s0"), attempt=1, first=10, grace_seconds=LASTING
    )


def mark(page: Page) -> None:
    """The document, so that another one would be known."""
    page.evaluate("document.pathwatchMark = 'the same'")


def assert_same_document(page: Page) -> None:
    assert page.evaluate("document.pathwatchMark") == "the same"


def test_later_steps_arrive(open_tab: OpenTab, live_server: BackgroundServer, half_way: RecordedRun) -> None:
    tab = open_tab(live_server.http_address)
    page = tab.open("/#/runs/live")
    before = drawn_points(chart(page, "train_loss"))
    seen = picture(chart(page, "train_loss"))
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
    wait_for_another_picture(chart(page, "train_loss"), seen)
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
    seen = picture(chart(page, "train_loss"))
    with rewound(live_server) as again:
        again.play(2)
        page.wait_for_function(
            "figure => Number(figure.dataset.points) === 24",
            arg=chart(page, "train_loss").element_handle(),
        )
        expect(field(page, "step")).to_contain_text("550")
        wait_for_another_picture(chart(page, "train_loss"), seen)


def test_a_zoomed_chart_of_a_rewound_run_is_drawn_anew(
    open_tab: OpenTab, live_server: BackgroundServer, half_way: RecordedRun
) -> None:
    page = open_tab(live_server.http_address).open("/#/runs/live")
    figure = chart(page, "train_loss")
    drawn_points(figure)
    whole = picture(figure)
    box = figure.locator(".u-over").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.95 * box["width"], box["y"] + 60, steps=4)
    page.mouse.up()
    page.mouse.move(5, 5)
    wait_for_another_picture(figure, whole)
    zoomed = picture(figure)
    with rewound(live_server) as again:
        again.play(2)
        expect(figure).to_have_attribute("data-points", "24")
        wait_for_another_picture(figure, zoomed)


def test_what_was_decided_after_the_step_a_job_went_back_to_is_not_marked(
    open_tab: OpenTab, live_server: BackgroundServer, half_way: RecordedRun
) -> None:
    tab = open_tab(live_server.http_address)

    def decided(route: Route) -> None:
        event = {"at": "2026-01-01T00:00:00Z", "kind": "action", "group": None, "before": "CONTINUE"}
        event |= {"after": "CHECKPOINT", "reason": "", "evidence": {}, "stop_at_step": None}
        steps = (300, 600, 400, 500)
        events = [event | {"revision": revision, "step": step} for revision, step in enumerate(steps, 1)]
        route.fulfill(json={"version": 1, "run": "live", "revision": len(steps), "events": events})

    tab.page.route("**/live/events*", decided)
    page = tab.open("/#/runs/live")
    drawn_points(chart(page, "train_loss"))
    marks = page.locator('.timeline-marks [data-tone="CHECKPOINT"]')
    expect(marks).to_have_count(3)
    titles = marks.evaluate_all("marks => marks.map(mark => mark.title)")
    assert [title.split(":")[0] for title in titles] == [
        f"CHECKPOINT at step {step}" for step in (300, 400, 500)
    ]


def test_a_run_made_anew_is_not_the_one_before(
    open_tab: OpenTab, live_server: BackgroundServer, half_way: RecordedRun
) -> None:
    """Of the same attempt and further on, while the page could not ask."""
    tab = open_tab(live_server.http_address)
    tab.allow("ERR_FAILED|404")  # what was asked before the page was cut off may be answered late
    page = tab.open("/#/runs/live")
    figure = chart(page, "train_loss")
    drawn_points(figure)
    page.route("**/api/**", lambda route: route.abort())
    with Client(live_server.grpc_address) as client:
        client.delete_run("live")
    trace = made_up(40, 7, groups=("add:0.6", "sub:0.6"))
    with RecordedRun(live_server.grpc_address, "live", trace) as anew:
        anew.play()
        page.unroute("**/api/**")
        expect(figure).to_have_attribute("data-points", "80")
        windows = as_json(page, "runs/live/series", metrics="train_loss")["groups"]["add:0.6"]
        assert table_column(figure) == pytest.approx(
            dict(zip(windows["step"], windows["metrics"]["train_loss"], strict=True)), rel=1e-5
        )
        events = as_json(page, "runs/live/events")["events"]
        told = [event for event in events if event["kind"] != "checkpoint"]
        expect(page.locator("[data-event]")).to_have_count(min(8, len(told)))


def test_events_are_listed_once(
    open_tab: OpenTab, live_server: BackgroundServer, half_way: RecordedRun
) -> None:
    """Also where the reader's click asks for them while the page does."""
    tab = open_tab(live_server.http_address)
    held: list[Route] = []

    def hold(route: Route) -> None:
        if len(held) < 2:
            held.append(route)
        else:
            route.continue_()

    tab.page.route("**/live/events*", hold)
    with tab.page.expect_request("**/live/events*"):
        page = tab.open("/#/runs/live")
    page.locator("details.chooser summary").click()
    with page.expect_request("**/live/events*"):
        page.locator(".chooser-list input").nth(2).click()
    for _ in range(500):
        if len(held) == 2:
            break
        page.wait_for_timeout(20)
    first, second = held
    listed = page.locator("[data-event]")
    first.continue_()
    expect(listed).not_to_have_count(0)
    with page.expect_response("**/live/events*"):
        second.continue_()
    for _ in range(2):
        with page.expect_response(lambda response: response.url.endswith("/api/v1/runs/live")):
            pass
    more = page.locator("[data-action=all-events]")
    if more.is_visible():
        more.click()
    events = as_json(page, "runs/live/events")["events"]
    assert listed.count() == len([event for event in events if event["kind"] != "checkpoint"])


def test_a_checkpoint_registered_after_the_last_round_is_listed(
    open_tab: OpenTab, live_server: BackgroundServer, half_way: RecordedRun
) -> None:
    page = open_tab(live_server.http_address).open("/#/runs/live")
    page.locator("[data-action=all-checkpoints]").click()
    before = page.locator("[data-checkpoint]").count()
    with Client(live_server.grpc_address) as client:
        # Between two windows: that it is there changes neither what is judged nor what is best.
        client.register_checkpoint("live", step=client.get_run("live").closed_step - 1, tag="by hand")
    expect(page.locator("[data-checkpoint]")).to_have_count(before + 1)
    expect(page.locator(".tag", has_text="by hand")).to_be_visible()


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
        tab.allow("net::ERR_")  # wherever in an answer the kill comes
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
    second.stop()  # with no client left to connect again meanwhile: gRPC logs a call that comes just then


def test_silence_is_told(open_tab: OpenTab, live_server: BackgroundServer) -> None:
    """Nothing happens on the server then: time alone makes a signal stale."""
    with RecordedRun(live_server.grpc_address, "silent", recorded("pair_s1"), grace_seconds=2) as run:
        run.play(4)
        page = open_tab(live_server.http_address).open("/#/runs/silent")
        freshness = page.locator('[data-health="freshness"]')
        expect(freshness).to_have_attribute("data-state", "bad")
        expect(field(card(page, "add:0.6"), "phase")).to_have_text("UNKNOWN")
        assert text(page, "action").upper() == "CONTINUE"
        # One step is fresh for two seconds, which is as long as the page waits before it asks again.
        while freshness.get_attribute("data-state") != "ok":
            run.play(1)
            page.wait_for_timeout(250)


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
    wait_for_all(page)
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
    before = page.evaluate("scrollY")  # the click has scrolled to what was clicked on
    page.mouse.wheel(0, 300)
    page.wait_for_function("before => scrollY > before", arg=before)
    at = page.evaluate("scrollY")
    half_way.play(1)
    expect(field(page, "step")).to_contain_text("750")
    assert page.evaluate("document.activeElement === document.pathwatchFocus")
    expect(details).to_have_attribute("open", "")
    assert abs(page.evaluate("scrollY") - at) < 40
