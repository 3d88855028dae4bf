"""Reading the status page as its readers do: fields by name, whole numbers, what a chart's canvas shows."""

from __future__ import annotations

import re
from typing import Any, cast

from playwright.sync_api import Locator, Page, expect

Place = Page | Locator
LAST_CHART = "expert_load_max_ratio"
"""They are drawn in the order of words.js, each in a frame of its own; every run has numbers for this one."""


def field(place: Place, name: str) -> Locator:
    """The first field of that name in a page or a part of it."""
    return place.locator(f'[data-field="{name}"]').first


def text(place: Place, name: str) -> str:
    """What a field says, as it is seen."""
    return field(place, name).inner_text().strip()


def whole_number(said: str) -> int | None:
    """The one whole number in a text, however its thousands are set apart; None where it has no digits."""
    numbers = re.findall(r"\d[\d,\s]*", said)
    assert len(numbers) <= 1, f"more than one number in {said!r}"
    return int(re.sub(r"\D", "", numbers[0])) if numbers else None


def row(page: Page, run: str) -> Locator:
    """Of a run in the list."""
    return page.locator(f'[data-run="{run}"]')


def card(page: Page, group: str) -> Locator:
    """Of a group on the page of a run, once it is there; groups have any names, so not by a selector."""
    page.wait_for_function(
        "group => [...document.querySelectorAll('[data-group]')].some(card => card.dataset.group === group)",
        arg=group,
    )
    for found in page.locator("[data-group]").all():
        if found.get_attribute("data-group") == group:
            return found
    raise AssertionError(f"there is no card of {group!r}")


def chart(page: Page, name: str) -> Locator:
    """The figure of a metric, of `layers` or of `phases`, once it has drawn something."""
    figure = page.locator(f'figure[data-chart="{name}"]').first
    figure.scroll_into_view_if_needed()
    return figure


def drawn_points(figure: Locator) -> int:
    """How many numbers a chart says that it has drawn, once it has."""
    figure.page.wait_for_function(
        "figure => Number(figure.dataset.points) > 0", arg=figure.element_handle(), polling=50
    )
    return int(figure.get_attribute("data-points") or 0)


def wait_for_all(page: Page) -> None:
    """Until the page of a run, or of two compared, shows all that it fetches and draws when it is opened."""
    drawn_points(chart(page, LAST_CHART))
    if page.locator("#compare").count():
        for part in ("#compare option", "[data-checkpoint]"):
            expect(page.locator(part)).not_to_have_count(0)
        expect(page.get_by_text("Loading …")).to_be_hidden()


def colours(figure: Locator) -> dict[str, int]:
    """Pixels by colour, as `r,g,b`, of what is drawn opaquely on the canvas of a chart."""
    return cast(
        dict[str, int],
        figure.locator("canvas").first.evaluate(
            """canvas => {
              const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
              const found = {};
              for (let i = 0; i < data.length; i += 4)
                if (data[i + 3] === 255) {
                  const colour = `${data[i]},${data[i + 1]},${data[i + 2]}`;
                  found[colour] = (found[colour] ?? 0) + 1;
                }
              return found;
            }"""
        ),
    )


def picture(figure: Locator) -> str:
    """What is on the canvas of a chart, to be compared."""
    return cast(str, figure.locator("canvas").first.evaluate("canvas => canvas.toDataURL()"))


def wait_for_another_picture(figure: Locator, before: str) -> None:
    """Until the canvas shows something else."""
    figure.page.wait_for_function(
        "([figure, before]) => figure.querySelector('canvas').toDataURL() !== before",
        arg=[figure.element_handle(), before],
        polling=100,
    )


def table_column(figure: Locator) -> dict[int, float]:
    """Step → number of the first line, out of the data table of a chart."""
    if figure.locator("details").get_attribute("open") is None:
        figure.locator("summary").click()
    expect(figure.locator("tbody tr")).not_to_have_count(0)
    cells = figure.locator("tbody tr").evaluate_all(
        "rows => rows.map(row => [row.dataset.step, row.querySelector('td').textContent])"
    )
    return {int(step): float(said) for step, said in cells if said != "\u2013"}


def as_json(page: Page, path: str, **parameters: Any) -> Any:
    """What the JSON API answers, asked without the page."""
    response = page.request.get(f"/api/v1/{path}", params=parameters)
    assert response.ok, response.text()
    return response.json()
