"""A table of correlations for people on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pathwatch.server.analysis.coefficients import Coefficient
from pathwatch.server.analysis.correlation import (
    CONTROL,
    Correlations,
    CorrelationTable,
    MeanCorrelation,
    MetricCorrelation,
)
from pathwatch.server.analysis.correlation_words import (
    ABOUT_CONTROL,
    ABOUT_P,
    above_step,
    control_warning,
    scope_words,
    tracks,
)
from pathwatch.server.analysis.pairing import Pairing
from pathwatch.server.cli.tables import table as new_table

_TABLE_WIDTH = 136
"""Columns that a table takes; on a narrower terminal its lines are broken, not cut."""
_SCOPE_NAMES = {"memorized": "after memorization", "run": "whole run"}


def print_pairing(console: Console, pairing: Pairing) -> None:
    listing = new_table("group", "test", "mean cosine", right=("mean cosine",))
    for group in pairing.groups:
        test = pairing.assigned.get(group)
        cosine = "–" if test is None else f"{pairing.similarity(group, test):.3f}"
        listing.add_row(group, test or "–", cosine)
    console.print("Groups and the tests closest to them (Hungarian assignment)", style="bold")
    console.print(listing)
    left = sorted(set(pairing.tests) - set(pairing.assigned.values()))
    if left:
        console.print(f"Tests without a group: {', '.join(left)}")
    console.print()


def print_correlations(console: Console, table: CorrelationTable) -> None:
    """Part by part, each with its warning: after memorization where there is such a part, beside the
    coefficients of the whole run. Within a part the control first, then by falling |Pearson|."""
    wide = Console(width=max(console.width, _TABLE_WIDTH))
    for parts in (table.by_group, table.pooled):
        whole = {(one.group, one.test): one for one in parts if one.scope == "run"}
        memorized = {(one.group, one.test): one for one in parts if one.scope == "memorized"}
        for key, run in whole.items():
            one = memorized.get(key, run)
            console.print(scope_words(one), style="bold")
            wide.print(_listing(one, run))
            warning = control_warning(one)
            if warning is not None:
                console.print(f"WARNING {warning}", style="yellow")
            console.print()
    for scope, name in _SCOPE_NAMES.items():
        means = [mean for mean in table.means if mean.scope == scope]
        if any(mean.groups > 1 for mean in means):
            console.print(f"mean over the groups of their coefficients, {name}", style="bold")
            wide.print(_mean_listing(means))
            console.print()
    for text in (ABOUT_CONTROL, ABOUT_P, *table.remarks):
        console.print(text)


def _listing(one: Correlations, run: Correlations) -> Table:
    numbers = (
        "n",
        "Pearson",
        "p",
        "p adj.",
        "Spearman",
        "p ",
        "p adj. ",
        "part. P",
        "part. S",
        "run P",
        "run S",
    )
    listing = new_table("metric", *numbers, "> step", "tracks", right=numbers)
    over_run = {metric.metric: metric for metric in run.metrics}
    for metric in [one.control, *sorted(one.metrics[1:], key=lambda metric: -_size(metric))]:
        control = metric.metric == CONTROL
        listing.add_row(
            _name(metric.metric),
            str(metric.n),
            *_cells(metric.pearson),
            *_cells(metric.spearman),
            _r(metric.partial_pearson),
            _r(metric.partial_spearman),
            _r(over_run[metric.metric].pearson),
            _r(over_run[metric.metric].spearman),
            "" if control else above_step(metric),
            "" if control else "yes" if tracks(metric) else "no",
            style="reverse" if control else None,
        )
    return listing


def _mean_listing(means: list[MeanCorrelation]) -> Table:
    numbers = ("groups", "Pearson", "Spearman", "part. P", "part. S")
    listing = new_table("metric", *numbers, right=numbers)
    for mean in [means[0], *sorted(means[1:], key=lambda mean: -abs(mean.pearson or 0))]:
        values = (mean.pearson, mean.spearman, mean.partial_pearson, mean.partial_spearman)
        listing.add_row(
            _name(mean.metric),
            str(mean.groups),
            *("–" if value is None else f"{value:+.2f}" for value in values),
            style="reverse" if mean.metric == CONTROL else None,
        )
    return listing


def _name(metric: str) -> Text:
    return Text("step number (control)" if metric == CONTROL else metric)


def _size(metric: MetricCorrelation) -> float:
    return -1.0 if metric.pearson is None else abs(metric.pearson.r)


def _r(coefficient: Coefficient | None) -> str:
    return "–" if coefficient is None else f"{coefficient.r:+.2f}"


def _cells(coefficient: Coefficient | None) -> tuple[str, str, str]:
    if coefficient is None:
        return ("–", "–", "–")
    adjusted = coefficient.p_adjusted
    return _r(coefficient), f"{coefficient.p:.0e}", "–" if adjusted is None else f"{adjusted:.2g}"
