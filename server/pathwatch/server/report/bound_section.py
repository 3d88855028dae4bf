"""The report's part on the paper's generalization bound (§4.4)."""

from __future__ import annotations

from pathwatch.server.analysis.bound import PUBLISHED_RIDGE, bound_series, ridge_agreement
from pathwatch.server.report.bound_figure import draw_bound
from pathwatch.server.report.figure import to_svg
from pathwatch.server.report.section import Picture, Section, Table
from pathwatch.server.traces import Trace


def bound_section(trace: Trace) -> Section:
    """Effective dimension for a sweep over λ, the variance term in units of σ², and what they come to."""
    series = bound_series(trace)
    ridges = series[0].ridges_A
    return Section(
        title="The bound: effective dimension and variance term",
        paragraphs=(
            "Theorem 4.1 of the paper bounds the error of a one-layer mixture of experts with frozen "
            "routers. What routing alone decides in it is the variance term σ²·d_eff(λ)/n, with "
            "d_eff(λ) = Tr(H (H + λI)⁻¹) of the routing kernel H and n samples: lower = routing is more "
            "shared, less noise can be fitted. Drawn in units of σ², over all tokens of the group's samples.",
            "Not shown: the bound's other terms, above all the bias, that is how badly the routing kernel "
            "expresses the target. A falling variance term alone therefore does not prove a falling test "
            "error: routing that forgets what tells samples apart lowers it too.",
        ),
        pictures=(
            Picture(
                svg=to_svg(draw_bound(series)),
                text="Effective dimension over training steps for each group and λ; below it the variance "
                f"term at λ = {PUBLISHED_RIDGE:g}.",
            ),
        ),
        tables=(
            Table(
                caption=f"Effective dimension and variance term at step {series[0].steps_P[-1]}",
                header=("group", "n", *(f"d_eff, λ = {ridge:g}" for ridge in ridges), "σ²·d_eff/n (σ² = 1)"),
                rows=tuple(
                    (
                        group.group,
                        group.samples,
                        *map(float, group.dimensions_PA[-1]),
                        float(group.variance_PA[-1, group.at(PUBLISHED_RIDGE)]),
                    )
                    for group in series
                ),
            ),
            Table(
                caption=f"Does λ matter? Spearman correlation over the run with λ = {PUBLISHED_RIDGE:g} "
                "(1 = the same order over time)",
                header=("group", *(f"λ = {ridge:g}" for ridge in ridges)),
                rows=tuple((group.group, *ridge_agreement(group)) for group in series),
            ),
        ),
    )
