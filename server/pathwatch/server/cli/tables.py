"""Tables and words for people on a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from pathwatch.server.report.phases import PHASE_STYLES


def table(title: str, *columns: str, right: Sequence[str] = ()) -> Table:
    """An empty table; columns named in `right` are set flush right."""
    made = Table(title=title or None, title_justify="left", header_style="bold", pad_edge=False, box=None)
    for column in columns:
        made.add_column(
            column, justify="right" if column in right else "left", no_wrap=column not in {"why", "history"}
        )
    return made


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
    """The last values as a row of bars, between their smallest and their largest."""
    recent = [value for value in values if math.isfinite(value)][-width:]
    if not recent:
        return ""
    low, span = min(recent), max(recent) - min(recent)
    bars = "▁▂▃▄▅▆▇█"
    return "".join(bars[round((value - low) / span * (len(bars) - 1)) if span > 0 else 0] for value in recent)
