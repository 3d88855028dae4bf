"""Charts draw what the gRPC API says: as many points, lines that go where the numbers go."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import numpy as np
import pytest
from browser import Tab
from numpy.typing import NDArray
from page_reading import chart, colours, drawn_points, wait_for_all
from playwright.sync_api import Locator, Route, expect
from recorded_run import RecordedRun

from pathwatch.client import Client
from pathwatch.server.app import BackgroundServer

pytestmark = pytest.mark.tools

OpenTab = Callable[..., Tab]
DRAWN = ("path_distance", "memorized_ratio", "train_loss", "effective_dimension", "routing_entropy")


@pytest.mark.parametrize("metric", DRAWN)
def test_a_chart_has_a_point_for_every_number(
    open_tab: OpenTab, recorded_server: BackgroundServer, client: Client, metric: str
) -> None:
    page = open_tab(recorded_server.http_address).open("/#/runs/pair")
    values = [
        window.metrics[metric] for window in client.get_metrics("pair").windows if metric in window.metrics
    ]
    assert len(values) > 100
    assert drawn_points(chart(page, metric)) == len(values)


def test_a_chart_is_drawn_in_the_colours_of_its_groups(
    open_tab: OpenTab, recorded_server: BackgroundServer
) -> None:
    page = open_tab(recorded_server.http_address).open("/#/runs/text")
    figure = chart(page, "train_loss")
    drawn_points(figure)
    frequent = [colour for colour, pixels in colours(figure).items() if pixels >= 20]
    assert len(frequent) >= 4


def test_the_table_of_a_chart_has_its_numbers(
    open_tab: OpenTab, recorded_server: BackgroundServer, client: Client
) -> None:
    page = open_tab(recorded_server.http_address).open("/#/runs/pair")
    figure = chart(page, "path_distance")
    drawn_points(figure)
    figure.locator("summary").first.click()
    table = figure.locator("table")
    expect(table).to_be_visible()
    headers = [header.strip() for header in table.locator("thead th").all_inner_texts()]
    rows = [
        [cell.strip().replace(",", "") for cell in line.locator("th, td").all_inner_texts()]
        for line in table.locator("tbody tr").all()
    ]
    shown = {row[0]: row for row in rows}
    for group in client.get_run("pair").groups:
        column = next(index for index, header in enumerate(headers) if header.startswith(group))
        windows = client.get_metrics("pair", group=group).windows
        agreeing = 0
        for window in windows:
            if str(window.step) in shown and "path_distance" in window.metrics:
                value = float(shown[str(window.step)][column])
                assert value == pytest.approx(window.metrics["path_distance"], rel=5e-3)
                agreeing += 1
        assert agreeing >= 20


def test_a_line_goes_where_the_numbers_go(
    open_tab: OpenTab, recorded_server: BackgroundServer, client: Client
) -> None:
    """Read from the pixels: the height of the line over the width of the chart, against the numbers."""
    page = open_tab(recorded_server.http_address).open("/#/runs/pair")
    group, other = client.get_run("pair").groups
    figure = chart(page, "memorized_ratio")
    both = drawn_points(figure)
    page.locator("[data-legend]").filter(has_text=other).click()
    page.wait_for_function(
        "([figure, both]) => Number(figure.dataset.points) < both", arg=[figure.element_handle(), both]
    )
    stroke = figure.locator(".swatch").first.evaluate("swatch => getComputedStyle(swatch).color")
    at_X, height_X = line_pixels(figure, [int(part) for part in re.findall(r"\d+", stroke)[:3]])
    windows = client.get_metrics("pair", group=group).windows
    steps = [window.step for window in windows if "memorized_ratio" in window.metrics]
    values = [window.metrics["memorized_ratio"] for window in windows if "memorized_ratio" in window.metrics]
    steps_X = steps[0] + (at_X - at_X[0]) / (at_X[-1] - at_X[0]) * (steps[-1] - steps[0])
    expected_X = np.interp(steps_X, steps, values)
    assert len(at_X) > 200
    assert np.ptp(height_X) > 50
    slope, offset = np.polyfit(expected_X, height_X, 1)
    assert slope > 0
    off_X = np.abs(height_X - (slope * expected_X + offset))
    assert np.quantile(off_X, 0.95) < 0.05 * np.ptp(height_X)


def test_a_late_answer_takes_nothing_from_a_metric_chosen_meanwhile(
    open_tab: OpenTab, live_server: BackgroundServer, half_way: RecordedRun
) -> None:
    """It was asked for before, and has no numbers of that metric."""
    page = open_tab(live_server.http_address).open("/#/runs/live")
    wait_for_all(page)
    held: list[Route] = []
    later = "**/live/series*after_step=*"
    page.route(later, lambda route: route.continue_() if held else held.append(route))
    half_way.play(1)
    deadline = time.monotonic() + 60
    while not held:
        assert time.monotonic() < deadline, "later steps were not asked for"
        page.wait_for_timeout(20)
    page.locator("details.chooser summary").click()
    page.locator(".chooser-list input[value=path_consistency]").click()
    figure = chart(page, "path_consistency")
    assert drawn_points(figure) == 2 * 16
    held[0].continue_()
    # The page asks again once it has taken what it waited for.
    with page.expect_response(lambda response: response.url.endswith("/api/v1/runs/live")):
        pass
    assert drawn_points(figure) == 2 * 16


def line_pixels(figure: Locator, stroke: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where along the canvas a line of that colour is seen, and how high above its bottom; in pixels."""
    found = figure.locator("canvas").first.evaluate(
        """(canvas, [r, g, b]) => {
          const {width, height} = canvas;
          const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
          const found = [];
          for (let x = 0; x < width; x++) {
            let sum = 0, count = 0;
            for (let y = 0; y < height; y++) {
              const i = 4 * (y * width + x);
              const far = Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b);
              if (data[i + 3] > 200 && far < 30) { sum += height - y; count += 1; }
            }
            if (count > 0) found.push([x, sum / count]);
          }
          return found;
        }""",
        stroke,
    )
    return np.array([x for x, _ in found]), np.array([y for _, y in found])
