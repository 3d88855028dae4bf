"""Tables and words for people on a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from rich.console import Group
from rich.table import Table
from rich.text import Text

from pathwatch.server.report.phases import PHASE_STYLES
from pathwatch.server.report.section import Table as ReportTable
from pathwatch.server.report.section import cell_text


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """An empty table; columns named in `right` are set flush right."""
    made = Table(header_style="bold", pad_edge=False, box=None)
    for column in columns:
        made.add_column(
            column, justify="right" if column in right else "left", no_wrap=column not in {"why", "history"}
        )
    return made


def report_table(shown: ReportTable) -> Group:
    """A report's table on the terminal: caption above, all but the first column flush right."""
    made = table(*shown.header, right=shown.header[1:])
    for row in shown.rows:
        made.add_row(*map(cell_text, row))
    return Group(Text(shown.caption, style="italic"), made, "")


def phase_text(phase: str) -> Text:
    style = PHASE_STYLES.get(phase)
    return Text(phase, style=style.terminal if style is not None else "")


def number(values: Mapping[str, float], name: str, digits: int = 3) -> str:
    """The value, or a dash where it is undefined."""
    value = values.get(name)
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def step(value: int | None) -> str:
    return "–" if value is None else str(value)


def sparkline(values: Sequence[float], width: int = 16) -> str:
    """The course of the values from first to last as a row of bars; each stands for the mean of its share."""
    if not values:
        return ""
    cells = min(width, len(values))
    edges = [len(values) * cell // cells for cell in range(cells + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, span = min(means), max(means) - min(means)
    bars = "▁▂▃▄▅▆▇█"
    return "".join(bars[round((mean - low) / span * (len(bars) - 1)) if span > 0 else 0] for mean in means)
