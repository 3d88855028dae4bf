"""The report as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import jinja2

from pathwatch.server.report.data import RunHistory
from pathwatch.server.report.labels import PATIENCE_POINTS, Labels, compare
from pathwatch.server.report.phases import PHASE_STYLES
from pathwatch.server.report.section import Section, cell_text


def render(
    history: RunHistory,
    figure_svg: bytes,
    labels: Labels | None = None,
    sections: Sequence[Section] = (),
) -> str:
    """The page; pictures are embedded, scores are shown only where labels are given."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"b64": lambda data: base64.b64encode(data).decode(), "cell": cell_text}
    return environment.get_template("page.html.jinja").render(
        history=history,
        labels=labels,
        comparisons=[]
        if labels is None
        else [(group.group, compare(group, labels)) for group in history.groups],
        patience=PATIENCE_POINTS,
        styles=PHASE_STYLES,
        sections=sections,
        figure=base64.b64encode(figure_svg).decode(),
    )
