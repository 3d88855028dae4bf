"""The part of the report on cohorts: every figure of the paper, every number of the study."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pathwatch.server.analysis.cohort_study import GroupStudy, StudySettings, cohort_study
from pathwatch.server.report.cohort_figures import draw_layers
from pathwatch.server.report.cohort_section import cohort_section
from pathwatch.server.report.cohort_tables import cohort_tables
from pathwatch.server.report.figure import to_svg
from pathwatch.server.report.section import Section
from pathwatch.server.traces import load_trace

TRACES = Path(__file__).parents[2] / "data" / "traces"


@pytest.fixture(scope="module")
def study() -> tuple[GroupStudy, ...]:
    return cohort_study(load_trace(TRACES / "ol_pair_s0.npz"), StudySettings(every=5))


@pytest.fixture(scope="module")
def section(study: tuple[GroupStudy, ...]) -> Section:
    return cohort_section(study)


def drawn_text(svg: bytes) -> str:
    """Words of a picture; matplotlib draws them as outlines and keeps them as comments."""
    assert svg.startswith(b"<?xml")
    return " ".join(re.findall(r"<!-- (.*?) -->", svg.decode(), flags=re.DOTALL))


@pytest.mark.slow
def test_each_picture_shows_every_group_and_says_what_it_is(section: Section) -> None:
    assert len(section.pictures) == 5
    for picture in section.pictures:
        words = drawn_text(picture.svg)
        assert "add:0.6" in words
        assert "sub:0.6" in words
        assert picture.text.startswith("For each group")


@pytest.mark.slow
def test_pictures_name_what_they_compare(section: Section, study: tuple[GroupStudy, ...]) -> None:
    memorized, trends, layers, controls, entropy = (drawn_text(picture.svg) for picture in section.pictures)
    assert "samples memorized" in memorized
    for group in study:
        for cohort in group.cohorts.cohorts:
            assert cohort.name in trends
    assert all(f"layer {layer}" in layers for layer in range(3))
    assert all(f"τ = {threshold}" in controls for threshold in (0.5, 0.6, 0.7, 0.8))
    assert "2ε, 0.5δ" in controls
    assert "within / across groups" in controls
    assert entropy.count("ρ = ") == 2


@pytest.mark.slow
def test_tables_hold_every_group_and_cohort(section: Section, study: tuple[GroupStudy, ...]) -> None:
    memorized, cohorts, trends, controls = section.tables
    for table in section.tables:
        assert all(len(row) == len(table.header) for row in table.rows)
        assert [row[0] for row in table.rows] == sorted(str(row[0]) for row in table.rows)
    assert [row[:5] for row in memorized.rows] == [
        ("add:0.6", 0.1, 0.05, 128, 127),
        ("sub:0.6", 0.1, 0.05, 128, 127),
    ]
    named = [(group.group, name) for group in study for name in ("all", "memorized")] + [
        (group.group, cohort.name) for group in study for cohort in group.cohorts.cohorts
    ]
    assert sorted((row[0], row[1]) for row in cohorts.rows) == sorted(named)
    assert {row[2] for row in trends.rows} == {"D_path", "C_i"}
    for row, group in zip(controls.rows, study, strict=True):
        whole = group.of("all")
        assert whole is not None
        ratio_S = whole.metric("path_distance_ratio")
        assert row[3:5] == (ratio_S[0], ratio_S[-1])


def test_limits_as_they_are_do_not_count_as_a_control(study: tuple[GroupStudy, ...]) -> None:
    as_is = [one for one in study[0].limits if one.epsilon_factor == one.delta_factor == 1]
    alone = replace(study[0], limits=tuple(as_is))
    assert as_is[0].spearman == pytest.approx(1)
    assert cohort_tables([alone])[-1].rows[0][2] is None


def test_many_groups_go_below_each_other(study: tuple[GroupStudy, ...]) -> None:
    many = [replace(study[0], cohorts=replace(study[0].cohorts, group=f"g{place}")) for place in range(5)]
    words = drawn_text(to_svg(draw_layers(many)))
    assert all(f"g{place}" in words for place in range(5))
