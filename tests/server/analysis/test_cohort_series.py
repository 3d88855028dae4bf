"""Metrics of parts of a group, against pathways and distances worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from numpy.typing import NDArray

from pathwatch.server.analysis.cohort_series import ALL, MEMORIZED, CohortSeries, cohort_series
from pathwatch.server.analysis.cohorts import GroupCohorts, group_cohorts
from pathwatch.server.analysis.windows import trace_geometry, trace_windows
from pathwatch.server.metrics.summary import MetricSettings, group_metrics
from pathwatch.server.traces import Trace, load_trace

TRACES = Path(__file__).parents[2] / "data" / "traces"
SETTINGS = MetricSettings()


def pathway(weights_LK: NDArray[np.floating], threshold: float) -> list[list[int]]:
    """Per layer the fewest experts, by falling weight, that exceed the threshold together."""
    layers = []
    for weights_K in weights_LK.tolist():
        chosen: list[int] = []
        total = 0.0
        for expert in sorted(range(len(weights_K)), key=lambda k: (-weights_K[k], k)):
            chosen.append(expert)
            total += weights_K[expert]
            if total > threshold:
                break
        layers.append(chosen)
    return layers


def joined(layers: list[list[int]]) -> list[int]:
    out = list(layers[0])
    for layer in layers[1:]:
        out += [-1, *layer]
    return out


def edits(a: list[int], b: list[int]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def cohorts_of(trace: Trace, epsilon: float = 0.3) -> list[GroupCohorts]:
    return [group_cohorts(trace, group, epsilon=epsilon, delta=0.05, limit=3) for group in trace.groups]


def samples_of(group: GroupCohorts, series: CohortSeries, step: int) -> list[int]:
    """Who a series is of, told from t* alone."""
    if series.cohort == ALL:
        return list(range(len(group.memorized_steps_N)))
    steps = dict(enumerate(group.memorized_steps_N.tolist()))
    if series.cohort == MEMORIZED:
        return [sample for sample, since in steps.items() if 0 <= since <= step]
    first, _, last = series.cohort.removeprefix("t*=").partition("-")
    return [sample for sample, since in steps.items() if int(first) <= since <= int(last or first)]


@pytest.mark.parametrize("seed", range(4))
def test_distances_are_those_of_the_samples_named(random_trace: Callable[..., Trace], seed: int) -> None:
    trace = random_trace(seed, points=8, groups=3)
    groups = cohorts_of(trace)
    points = [0, 3, 5, 7]
    found = cohort_series(trace, groups, points, SETTINGS)
    assert {series.cohort for series in found} > {ALL, MEMORIZED}
    for series in found:
        g = trace.groups.index(series.group)
        others = [h for h in range(3) if h != g]
        for at, step in enumerate(series.steps_S.tolist()):
            point = trace.steps_T.tolist().index(step)
            who = samples_of(groups[g], series, step)
            assert series.samples_S[at] == len(who)
            for threshold, name in ((0.7, "path_distance"), (0.5, "path_distance_tau_0_5")):
                paths = [
                    [pathway(trace.weights_TGNLK[point, h, n], threshold) for n in range(trace.samples)]
                    for h in range(3)
                ]
                within = fmean(
                    edits(joined(paths[g][i]), joined(paths[g][j])) for i, j in combinations(who, 2)
                )
                assert series.metric(name)[at] == pytest.approx(within)
                if threshold != 0.7:
                    continue
                cross = fmean(
                    edits(joined(paths[g][i]), joined(paths[h][j]))
                    for h, i, j in product(others, who, range(trace.samples))
                )
                assert series.metric("path_distance_cross")[at] == pytest.approx(cross)
                assert series.metric("path_distance_ratio")[at] == pytest.approx(within / cross)
                by_layer = [
                    fmean(edits(paths[g][i][layer], paths[g][j][layer]) for i, j in combinations(who, 2))
                    for layer in range(trace.layers)
                ]
                assert series.layer_path_distance_SL[at].tolist() == pytest.approx(by_layer)


@pytest.mark.parametrize("seed", range(4))
def test_a_series_begins_when_its_samples_are_memorized(
    random_trace: Callable[..., Trace], seed: int
) -> None:
    trace = random_trace(seed)
    groups = cohorts_of(trace)
    found = {
        (series.group, series.cohort): series
        for series in cohort_series(trace, groups, range(len(trace.steps_T)), SETTINGS)
    }
    steps = trace.steps_T.tolist()
    for group in groups:
        assert found[group.group, ALL].steps_S.tolist() == steps
        for cohort in group.cohorts:
            if len(cohort.samples_M) < 2:
                assert (group.group, cohort.name) not in found
                continue
            series = found[group.group, cohort.name]
            assert series.steps_S.tolist() == [step for step in steps if step >= cohort.last_step]
            assert set(series.samples_S.tolist()) == {len(cohort.samples_M)}
        memorized = found[group.group, MEMORIZED]
        reached = [(group.memorized_steps_N >= 0) & (group.memorized_steps_N <= step) for step in steps]
        assert memorized.steps_S.tolist() == [
            step for step, who in zip(steps, reached, strict=True) if who.sum() >= 2
        ]


def test_all_samples_are_what_the_live_service_publishes() -> None:
    trace = load_trace(TRACES / "pair_s1.npz")
    for series in cohort_series(trace, cohorts_of(trace), [100], SETTINGS):
        if series.cohort == ALL:
            live = group_metrics(trace_windows(trace, 100), trace_geometry(trace, 100), SETTINGS)
            assert {name: values_S.tolist() for name, values_S in series.metrics.items()} == {
                name: [value] for name, value in live[series.group].values.items()
            }


def test_every_metric_of_a_cohort_is_that_of_a_run_with_no_other_samples() -> None:
    trace = load_trace(TRACES / "pair_s1.npz")
    groups = cohorts_of(trace)
    cohort = groups[0].cohorts[0]
    point = len(trace.steps_T) - 1
    found = {
        series.cohort: series
        for series in cohort_series(trace, groups, [point], SETTINGS)
        if series.group == groups[0].group
    }[cohort.name]
    assert trace.target_weights_TGNLK is not None
    assert trace.targets_GN is not None
    alone = Trace(
        name="alone",
        steps_T=trace.steps_T,
        groups=trace.groups[:1],
        losses_TGN=trace.losses_TGN[:, :1, cohort.samples_M],
        weights_TGNLK=trace.weights_TGNLK[:, :1, cohort.samples_M],
        target_weights_TGNLK=trace.target_weights_TGNLK[:, :1, cohort.samples_M],
        targets_GN=trace.targets_GN[:1, cohort.samples_M],
        gram_self_TLKK=trace.gram_self_TLKK,
        gram_next_TLKK=trace.gram_next_TLKK,
        meta={},
    )
    expected = group_metrics(trace_windows(alone, point), trace_geometry(alone, point), SETTINGS)
    values = expected[groups[0].group].values
    assert {"path_consistency", "effective_dimension", "target_effective_dimension"} <= values.keys()
    assert {name: float(found.metric(name)[0]) for name in values} == dict(values)
    across = {"path_distance_cross", "path_distance_ratio"}
    assert found.metrics.keys() == values.keys() | across


def test_a_run_of_one_group_and_one_layer_has_neither_ratio_nor_consistency(
    random_trace: Callable[..., Trace],
) -> None:
    trace = random_trace(groups=1, layers=1)
    for series in cohort_series(trace, cohorts_of(trace), [11], SETTINGS):
        assert "path_distance" in series.metrics
        assert not {"path_distance_cross", "path_distance_ratio", "path_consistency"} & series.metrics.keys()
        assert np.isnan(series.metric("path_consistency")).all()


def test_samples_that_route_alike_have_no_ratio(random_trace: Callable[..., Trace]) -> None:
    trace = random_trace()
    weights = np.zeros_like(trace.weights_TGNLK)
    weights[..., 0] = 1
    alike = random_trace(weights_TGNLK=weights)
    for series in cohort_series(alike, cohorts_of(alike), [11], SETTINGS):
        assert series.metric("path_distance_cross")[0] == 0
        assert "path_distance_ratio" not in series.metrics
