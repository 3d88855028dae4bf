"""The metrics of *Run*: pathways, losses, what chance may do, layers."""

from __future__ import annotations

from collections.abc import Sequence

from pathwatch.server.monitoring.dashboards.panels import AnyPanel, band, heat, lines
from pathwatch.server.monitoring.dashboards.queries import GROUPS, NORMAL_95, Query, of_groups


def pathways() -> list[AnyPanel]:
    return [
        _by_group(
            "Path distance",
            "Mean edit distance between the expert pathways of two samples; lower = more shared. It falls "
            "while a group generalizes, after its losses have long settled.",
            "suffix:symbols",
            "path_distance",
        ),
        _by_group(
            "Path distance, within / across groups",
            "Below 1 and falling: the group forms pathways of its own. Falling distance at an unchanged "
            "ratio is load balancing or the whole model at work, not this group. Needs two groups.",
            "none",
            "path_distance_ratio",
        ),
        _by_group(
            "Target affinity",
            "Routing distance between samples with the same target / between any; lower = routing follows "
            "the answer. Absent without targets, or below 100 pairs of samples that share one.",
            "none",
            "target_affinity",
            low=0,
        ),
        _by_group(
            "Smoothness of pathways",
            "1 − the paper's consistency C_i: how alike the experts of neighbouring layers are; higher = "
            "smoother. Needs the routers' geometry and two layers.",
            "none",
            "path_smoothness",
        ),
        _by_group(
            "Consistency as printed (C_i)",
            "The paper's own quantity, the mirror image of smoothness; lower = smoother.",
            "none",
            "path_consistency",
        ),
        _by_group(
            "Effective dimension",
            "How many independent ways of routing the group uses; lower = simpler routing.",
            "none",
            "effective_dimension",
            low=0,
        ),
        _by_group(
            "Routing entropy",
            "How undecided the routers are; higher = softer. A fall to 0 is a collapse: always the same "
            "experts.",
            "suffix:nats",
            "routing_entropy",
            low=0,
        ),
        _by_group(
            "Expert load, max / mean",
            "Load of the busiest expert; 1 = balanced, the number of experts = one does everything "
            "(collapse).",
            "none",
            "expert_load_max_ratio",
            runbooks=["PathwatchExpertLoadCollapse"],
            low=1,
        ),
        _by_group(
            "Samples in the window",
            "How many samples the numbers rest on; higher = steadier.",
            "locale",
            "window_samples",
            low=0,
        ),
    ]


def losses() -> list[AnyPanel]:
    return [
        _by_group(
            "Memorized share",
            "Share of samples whose loss came below the threshold and stayed; higher = more learnt by heart. "
            "Near 100 % is not yet generalizing: watch path distance from there on.",
            "percentunit",
            "memorized_ratio",
            low=0,
            high=1,
        ),
        _by_group(
            "Train loss",
            "Mean loss of samples that were trained on; lower = better fitted. It says nothing about new "
            "data.",
            "suffix:nats",
            "train_loss",
        ),
        _by_group(
            "Unseen loss",
            "Mean loss of samples kept back so far; lower = better on new data. Rising while train loss "
            "falls: overfitting. Absent once all were trained on.",
            "suffix:nats",
            "unseen_loss",
            no_value="no samples are kept back",
        ),
    ]


def bands() -> list[AnyPanel]:
    distance = band(
        "Path distance of $group",
        "Mean ± 1.96 standard errors; lower = more shared. A move within the band may be chance.",
        "suffix:symbols",
        of_groups("path_distance"),
        f"{NORMAL_95} * {of_groups('path_distance_stderr')}",
    )
    gap = band(
        "Loss gap of $group",
        "Loss of samples kept back minus loss of samples trained on, ± 1.96 standard errors; higher = more "
        "memorized, a band around 0 = none. Absent once all samples were trained on.",
        "suffix:nats",
        of_groups("loss_gap"),
        f"{NORMAL_95} * {of_groups('loss_gap_stderr')}",
    )
    return [panel.span(24).repeat("group").repeat_direction("h") for panel in (distance, gap)]


def layers() -> list[AnyPanel]:
    padded = f"max by (group, layer) (pathwatch_layer_path_distance{{{GROUPS}}})"
    # Rows are sorted as text: 002 comes before 010.
    for digits, zeros in (("\\\\d", "00"), ("\\\\d\\\\d", "0")):
        padded = f'label_replace({padded}, "layer", "{zeros}$1", "layer", "({digits})")'
    panel = heat(
        "Path distance by layer, $group",
        "Which layers share first; lower = more shared. Only of runs created with `per_layer`.",
        "none",
        Query(padded, "layer {{layer}}"),
        scheme="Viridis",
        buckets=False,
        cell_unit="suffix:symbols",
        span=24,
    )
    return [panel.repeat("group").repeat_direction("h")]


def _by_group(
    title: str,
    description: str,
    unit: str,
    name: str,
    *,
    low: float | None = None,
    high: float | None = None,
    no_value: str = "no data",
    runbooks: Sequence[str] = (),
) -> AnyPanel:
    return lines(
        title,
        description,
        unit,
        Query(of_groups(name), "{{group}}"),
        low=low,
        high=high,
        no_value=no_value,
        runbooks=runbooks,
    )
