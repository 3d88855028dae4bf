"""Writes a report to disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pathwatch.server.report.data import RunHistory
from pathwatch.server.report.figure import draw, to_png, to_svg
from pathwatch.server.report.labels import Labels
from pathwatch.server.report.page import render
from pathwatch.server.report.section import Section


def write_report(
    folder: Path, history: RunHistory, labels: Labels | None = None, sections: Sequence[Section] = ()
) -> tuple[Path, Path]:
    """Makes `report.html` and `report.png` in the folder and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    figure = draw(history, labels)
    page, picture = folder / "report.html", folder / "report.png"
    picture.write_bytes(to_png(figure))
    page.write_text(render(history, to_svg(figure), labels, sections), encoding="utf-8")
    return page, picture
