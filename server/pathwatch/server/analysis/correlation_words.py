"""What a table of correlations does not prove, in words."""

from __future__ import annotations

from pathwatch.server.analysis.coefficients import Coefficient
from pathwatch.server.analysis.correlation import Correlations, CorrelationTable, MetricCorrelation

SIGNIFICANT = 0.05
"""Adjusted p below which something is said to be left once the step number is removed."""
ABOUT_P = (
    "Neighbouring points of a run resemble each other, so p, which takes them for independent, is far too "
    "small. p adj. counts only the points that their autocorrelation leaves (lag 1; Bretherton et al. 1999)."
)
ABOUT_CONTROL = (
    "The step number is the control: whatever drifts one way correlates with a score that rises once. "
    "Look for metrics whose |r| exceeds the step number's, and at the partial correlation, with the step "
    "number removed: what follows the score keeps it, what merely drifts does not. A metric tracks where "
    "both partial coefficients keep the sign of the plain ones, one of them at adjusted p < 0.05."
)


def scope_words(correlations: Correlations) -> str:
    """`add, after memorization (steps 125 to 4000)`."""
    who = "mean of the groups" if correlations.group is None else correlations.group
    test = f" → {correlations.test}" if correlations.test else ""
    when = "after memorization" if correlations.scope == "memorized" else "whole run"
    return f"{who}{test}, {when} (steps {correlations.first_step} to {correlations.last_step})"


def above_step(metric: MetricCorrelation) -> str:
    """By which coefficients |r| exceeds that of the step number."""
    by = {"Pearson": metric.above_step_pearson, "Spearman": metric.above_step_spearman}
    names = [name for name, exceeds in by.items() if exceeds]
    return "both" if len(names) == 2 else names[0] if names else "no"


def tracks(metric: MetricCorrelation) -> bool:
    """Whether both partial correlations keep the sign of the plain ones, one at `SIGNIFICANT`, adjusted.

    Both would be too much to ask: a score that leaps once has few independent points.
    """
    pairs = ((metric.partial_pearson, metric.pearson), (metric.partial_spearman, metric.spearman))
    return all(_keeps_sign(*pair) for pair in pairs) and any(_significant(partial) for partial, _ in pairs)


def control_warning(correlations: Correlations) -> str | None:
    """Says so where the step number does as well as a metric, or better."""
    control = correlations.control
    others = [one for one in correlations.metrics[1:] if one.pearson is not None]
    beaten = [one.metric for one in others if above_step(one) == "no"]
    if control.pearson is None or control.spearman is None or not beaten:
        return None
    left = [one.metric for one in others if tracks(one)]
    return (
        f"{scope_words(correlations)}: the step number alone reaches Pearson {control.pearson.r:+.2f}, "
        f"Spearman {control.spearman.r:+.2f}. No better, by either: {', '.join(beaten)}. "
        "With the step number removed, both coefficients keep their sign, one of them at "
        f"adjusted p < {SIGNIFICANT:g}, for: {', '.join(left) if left else 'none'}."
    )


def warnings(table: CorrelationTable) -> tuple[str, ...]:
    """`control_warning` of all parts of the table."""
    return tuple(
        text for one in (*table.by_group, *table.pooled) if (text := control_warning(one)) is not None
    )


def _keeps_sign(partial: Coefficient | None, plain: Coefficient | None) -> bool:
    return partial is not None and plain is not None and partial.r * plain.r > 0


def _significant(coefficient: Coefficient | None) -> bool:
    return (
        coefficient is not None
        and coefficient.p_adjusted is not None
        and coefficient.p_adjusted < SIGNIFICANT
    )
