"""The report's part on cohorts: the paper's figures for a user's own run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from pathwatch.server.analysis.cohort_study import GroupStudy
from pathwatch.server.report.cohort_figures import (
    draw_controls,
    draw_counts,
    draw_entropy,
    draw_layers,
    draw_trends,
)
from pathwatch.server.report.cohort_tables import cohort_tables
from pathwatch.server.report.figure import to_svg
from pathwatch.server.report.section import Picture, Section

_TEXTS: Mapping[str, str] = {
    "memorized": "For each group over the training steps: samples newly memorized at each point and in all.",
    "trends": "For each group over the training steps: path distance and consistency of each cohort from "
    "its t* on, with quadratic fits.",
    "layers": "For each group over the training steps: path distance of each layer.",
    "controls": "For each group over the training steps: path distance at four thresholds, for other limits "
    "of memorization, within and across groups.",
    "entropy": "For each group: path distance against routing entropy, one dot per point of the run.",
}


def cohort_pictures(study: Sequence[GroupStudy]) -> Mapping[str, Figure]:
    """The pictures by name."""
    return {
        "memorized": draw_counts(study),
        "trends": draw_trends(study),
        "layers": draw_layers(study),
        "controls": draw_controls(study),
        "entropy": draw_entropy(study),
    }


def cohort_section(study: Sequence[GroupStudy]) -> Section:
    """The part of the page; `study` holds at least one group."""
    return Section(
        title="Cohorts: what became of the memorized samples",
        paragraphs=(
            "A sample is memorized at t*, the earliest step from which on its loss stays at most ε and "
            "within δ of its last loss (§3.1 of arXiv 2506.21551). A cohort holds the samples of one "
            "t*; neighbouring t* are merged into few cohorts of near-equal size. A cohort's series "
            "begins when all of its samples are memorized and is always of the same samples; "
            "“memorized” is, at each point, of those memorized by then.",
            "First: samples memorized, new (bars) and in all (line); dotted: all samples (Fig. 1). "
            "Second: distance and consistency after t*, with a quadratic fit (Fig. 4, 6); a few "
            "extreme values of C_i may lie outside the axes. Third: distance layer by layer (Fig. 5). "
            "Fourth: does the distance depend on τ (E.1), on ε and δ (E.3), is it more than a change "
            "across all groups (E.4)? Fifth: is it more than entropy (E.5)? Dark = early, light = "
            "late.",
            "t* is known only at the end of the run: under noise, samples that have long been fitted "
            "count as memorized late, and cohorts with a late t* have few points. A trend is a "
            "description, not a test: neighbouring points of a run are not independent, and falling "
            "distance alone is no proof of generalization.",
        ),
        pictures=tuple(
            Picture(svg=to_svg(figure), text=_TEXTS[name]) for name, figure in cohort_pictures(study).items()
        ),
        tables=cohort_tables(study),
    )
