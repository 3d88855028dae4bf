"""The report's part on correlations says what it shows, and warns."""

from __future__ import annotations

import numpy as np
import pytest

from pathwatch.server.analysis.correlation import CorrelationTable, correlation_table
from pathwatch.server.analysis.scores import ScoreSeries, targets
from pathwatch.server.analysis.series import GroupSeries
from pathwatch.server.report.correlation_section import correlation_section
from pathwatch.server.report.data import RunHistory
from pathwatch.server.report.page import render
from pathwatch.server.report.run_series import run_series

STEPS = np.arange(0, 2000, 50)


@pytest.fixture
def table() -> CorrelationTable:
    """Two groups, one never memorized; `drift` is the step number with noise."""
    rng = np.random.default_rng(5)
    scores = 1 / (1 + np.exp(-(STEPS - 1000) / 100))
    series = [
        GroupSeries(
            group=group,
            steps_T=STEPS,
            metrics={
                "drift": -STEPS + rng.normal(0, 200, len(STEPS)),
                "target_affinity": 1 - scores + rng.normal(0, 0.02, len(STEPS)),
            },
            memorized_step=memorized,
        )
        for group, memorized in (("math", 300), ("c <&> d", None))
    ]
    chosen, remarks = targets(series, {("", ""): ScoreSeries(steps_S=STEPS, scores_S=scores)})
    return correlation_table(chosen, remarks=remarks)


def test_each_group_is_shown_once_after_memorization_where_there_is_such_a_time(
    table: CorrelationTable,
) -> None:
    section = correlation_section(table)
    captions = [one.caption for one in section.tables]
    assert captions[0] == "math, after memorization (steps 300 to 1950)"
    assert captions[1] == "c <&> d, whole run (steps 0 to 1950)"
    assert all(len(row) == len(one.header) for one in section.tables for row in one.rows)
    assert section.tables[0].rows[0][0] == "step number (control)"


def test_the_warning_and_the_words_for_the_picture_are_there(table: CorrelationTable) -> None:
    section = correlation_section(table)
    told = [text for text in section.paragraphs if "the step number alone reaches" in text]
    assert any("math" in text and "drift" in text.split("No better")[1] for text in told)
    assert any("never counted as memorized" in text for text in section.paragraphs)
    (picture,) = section.pictures
    assert b"<svg" in picture.svg
    assert "math: highest is target_affinity" in picture.text


def test_the_page_takes_the_section(history: RunHistory, table: CorrelationTable) -> None:
    text = render(history, b"<svg/>", None, [correlation_section(table)])
    assert "Do the metrics follow the scores?" in text
    assert "c &lt;&amp;&gt; d" in text
    assert "<&> d" not in text


def test_a_run_counts_as_memorized_since_the_service_said_so(history: RunHistory) -> None:
    series = {one.group: one for one in run_series(history)}
    assert series["math"].memorized_step == 100
    assert series["text & more"].memorized_step is None, "overfitting says nothing about memorization"
    np.testing.assert_allclose(series["math"].metrics["train_loss"][:2], [4.0, 4.0 / 51])
