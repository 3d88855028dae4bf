"""Where the server, or a proxy before it, refuses something, the page says so and shows the rest."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from browser import Tab
from page_reading import chart, drawn_points, field, picture, row, wait_for_another_picture
from playwright.sync_api import Route, expect
from recorded_run import RecordedRun

from pathwatch.server.app import BackgroundServer

pytestmark = pytest.mark.tools

OpenTab = Callable[..., Tab]
WORDS = "history cannot be read just now"
NOTE_WORDS = """words => {
  document.pathwatchSaid = false;
  const look = () => { document.pathwatchSaid ||= document.body.innerText.includes(words); };
  new MutationObserver(look).observe(document.body, {childList: true, subtree: true, attributes: true});
}"""
"""Whether they were ever to be seen from then on."""
CUT_BODIES = """() => {
  const whole = window.fetch;
  const cut = {start: body => body.error(new TypeError("network error"))};
  window.fetch = async (...asked) => {
    const {headers} = await whole(...asked);
    return new Response(new ReadableStream(cut), {headers});
  };
}"""


def unavailable(route: Route) -> None:
    """As the server refuses."""
    route.fulfill(status=503, json={"error": {"code": "unavailable", "message": WORDS}})


def test_a_proxy_that_answers_is_not_the_server(
    open_tab: OpenTab, live_server: BackgroundServer, half_way: RecordedRun
) -> None:
    """What is shown grows older, with every answer of the proxy."""
    tab = open_tab(live_server.http_address)
    tab.allow("502")
    page = tab.open("/#/runs/live")
    drawn_points(chart(page, "train_loss"))
    expect(field(page, "connection")).to_have_text("live")
    page.route("**/api/**", lambda route: route.fulfill(status=502, body="no upstream"))
    expect(field(page, "away")).to_have_text(
        re.compile(r"Not up to date for ([3-9]|\d\d) s: Bad Gateway\..*that old")
    )
    expect(field(page, "connection")).to_have_text("reconnecting")
    page.unroute("**/api/**")
    expect(field(page, "connection")).to_have_text("live")
    expect(field(page, "away")).to_have_text("")


def test_an_answer_that_is_cut_off_is_none(open_tab: OpenTab, recorded_server: BackgroundServer) -> None:
    """As by a server that is killed while it answers: no fault of the page, whose console would tell one."""
    page = open_tab(recorded_server.http_address).open("/#/runs/other")
    expect(field(page, "connection")).to_have_text("live")
    page.evaluate(CUT_BODIES)
    expect(field(page, "away")).to_contain_text("the server does not answer")
    expect(field(page, "connection")).to_have_text("reconnecting")


def test_one_refusal_does_not_blank_the_rest(
    open_tab: OpenTab, live_server: BackgroundServer, half_way: RecordedRun
) -> None:
    tab = open_tab(live_server.http_address)
    tab.allow("503")
    tab.page.route("**/live/series*", unavailable)
    page = tab.open("/#/runs/live")
    expect(page.locator("[data-event]")).not_to_have_count(0)
    expect(page.locator("[data-checkpoint]")).not_to_have_count(0)
    expect(field(page, "away")).to_contain_text(WORDS)
    expect(field(page, "connection")).to_have_text("reconnecting")
    page.unroute("**/live/series*")
    drawn_points(chart(page, "train_loss"))
    expect(field(page, "connection")).to_have_text("live")


def test_what_failed_at_first_is_asked_for_again(
    open_tab: OpenTab, recorded_server: BackgroundServer
) -> None:
    tab = open_tab(recorded_server.http_address)
    tab.allow("ERR_FAILED")
    tab.page.route("**/api/v1/runs", lambda route: route.abort(), times=1)
    page = tab.open("/#/runs/other")
    expect(page.locator("#compare option")).not_to_have_count(0)


def test_checkpoints_of_a_group_that_cannot_be_had(
    open_tab: OpenTab, recorded_server: BackgroundServer
) -> None:
    tab = open_tab(recorded_server.http_address)
    tab.allow("503")
    page = tab.open("/#/runs/other")
    listed = page.locator("[data-checkpoint]")
    expect(listed).to_have_count(10)
    part = page.locator("section").filter(has=page.locator("#checkpoints-title")).last
    page.route("**/checkpoints?group=*", unavailable)
    page.locator("#checkpoints-group").select_option("sub:0.6")
    expect(part).to_contain_text(WORDS)
    page.locator("#checkpoints-group").select_option("")
    expect(listed).to_have_count(10)
    expect(part.get_by_text(WORDS)).to_be_hidden()


def test_layers_of_a_group_that_cannot_be_had(open_tab: OpenTab, recorded_server: BackgroundServer) -> None:
    """No map of another group stands under the message, and the message goes with its cause."""
    tab = open_tab(recorded_server.http_address)
    tab.allow("503")
    page = tab.open("/#/runs/text")
    figure = chart(page, "layers")
    drawn_points(figure)
    seen = picture(figure)
    choice = page.locator("#layers-group")
    first, second, *_ = choice.locator("option").evaluate_all("options => options.map(each => each.value)")
    page.route("**/layers?*", unavailable)
    choice.select_option(second)
    problem = page.get_by_text(WORDS)
    expect(problem).to_be_visible()
    expect(figure).to_be_hidden()
    choice.select_option(first)
    page.unroute("**/layers?*")
    expect(problem).to_be_hidden()
    expect(figure).to_be_visible()
    choice.select_option(second)
    wait_for_another_picture(figure, seen)


@pytest.mark.parametrize(
    ("part", "kept", "shown"),
    [("checkpoints", "", "[data-checkpoint]"), ("layers", "c", 'figure[data-chart="layers"]')],
)
def test_a_late_refusal_of_a_group_is_no_matter_to_the_next(
    open_tab: OpenTab, recorded_server: BackgroundServer, part: str, kept: str, shown: str
) -> None:
    tab = open_tab(recorded_server.http_address)
    tab.allow("503")
    page = tab.open("/#/runs/text")
    expect(page.locator(shown).first).to_be_visible()
    choice, held = page.locator(f"#{part}-group"), list[Route]()
    page.route(f"**/{part}?group=py*", lambda route: held.append(route))
    with page.expect_request(f"**/{part}?group=py*"):
        choice.select_option("py")
    with page.expect_response(lambda response: f"/{part}" in response.url):
        choice.select_option(kept)
    page.evaluate(NOTE_WORDS, WORDS)
    while not held:
        page.wait_for_timeout(20)
    for route in held:
        unavailable(route)
    for _ in range(2):
        with page.expect_response(lambda response: response.url.endswith("/api/v1/runs/text")):
            pass
    assert not page.evaluate("document.pathwatchSaid")
    expect(page.locator(shown).first).to_be_visible()


def test_a_group_without_judged_windows_has_no_map(
    open_tab: OpenTab, recorded_server: BackgroundServer
) -> None:
    tab = open_tab(recorded_server.http_address)
    page = tab.open("/#/runs/text")
    figure = chart(page, "layers")
    drawn_points(figure)
    nothing = {"version": 1, "run": "text", "group": "", "layers": 8, "step": [], "distance": []}
    page.route("**/layers?*", lambda route: route.fulfill(json=nothing))
    page.locator("#layers-group").select_option(index=1)
    expect(page.get_by_text("No window of this group has been judged yet.")).to_be_visible()
    expect(figure).to_be_hidden()


def test_time_goes_on_where_nothing_changes(open_tab: OpenTab, recorded_server: BackgroundServer) -> None:
    """A computer that slept takes the time from answers that say nothing else."""
    tab = open_tab(recorded_server.http_address)
    page = tab.open()
    expect(field(page, "connection")).to_have_text("live")
    later = format_datetime(datetime.now(UTC) + timedelta(hours=3), usegmt=True)
    page.route("**/api/v1/runs", lambda route: route.fulfill(status=304, headers={"Date": later}))
    expect(row(page, "pair")).to_contain_text("3 h")
