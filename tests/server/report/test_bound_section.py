"""The report's part on the bound says what was computed, for every group."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from pathwatch.server.analysis.bound import bound_series
from pathwatch.server.report.bound_figure import draw_bound
from pathwatch.server.report.bound_section import bound_section
from pathwatch.server.traces import load_trace

TRACES = Path(__file__).parents[2] / "data" / "traces"


def test_section_of_a_recorded_run() -> None:
    trace = load_trace(TRACES / "ol_pair_s0.npz")
    section = bound_section(trace)
    (picture,) = section.pictures
    ElementTree.fromstring(picture.svg)  # noqa: S314
    last, agreement = section.tables
    assert last.caption.endswith(f"step {trace.steps_T[-1]}")
    assert [row[0] for row in last.rows] == [row[0] for row in agreement.rows] == list(trace.groups)
    for series, row in zip(bound_series(trace), last.rows, strict=True):
        assert row[1:] == (
            trace.samples,
            *series.dimensions_PA[-1],
            pytest.approx(series.dimensions_PA[-1, 2] / trace.samples),
        )
        assert len(row) == len(last.header)
    assert all(row[3] == pytest.approx(1) for row in agreement.rows)


def test_no_curve_leaves_its_panel() -> None:
    """Panels of a row share their scale, whichever group needs most room."""
    figure = draw_bound(bound_series(load_trace(TRACES / "text_c_s0.npz"), every=6))
    assert len(figure.axes) == 8
    for axis in figure.axes:
        low, high = axis.get_ylim()
        for line in axis.lines:
            assert low <= min(line.get_ydata()) <= max(line.get_ydata()) <= high
