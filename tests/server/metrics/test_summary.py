"""All metrics of a round together: golden values under their published names, and what is absent when."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathwatch.server.metrics import arrays, distance
from pathwatch.server.metrics.consistency import grams
from pathwatch.server.metrics.distance import cross_path_distance
from pathwatch.server.metrics.pairs import PairBudget
from pathwatch.server.metrics.summary import MetricSettings, cross_distance, group_metrics, group_part
from pathwatch.server.metrics.window import Geometry

ALWAYS = {"window_samples", "effective_dimension", "routing_entropy", "expert_load_max_ratio", "train_loss"}
PAIRED = {"path_distance", "path_distance_normalized"} | {f"path_distance_tau_0_{tau}" for tau in (5, 6, 8)}
CROSS = {"path_distance_cross", "path_distance_ratio"}


def geometry_of(router_weights) -> Geometry:
    gram_self, gram_next = grams(router_weights)
    return Geometry(
        step=0, gram_self_LKK=gram_self.astype(np.float32), gram_next_LKK=gram_next.astype(np.float32)
    )


def test_golden_under_published_names(golden, make_window):
    inputs, expected = golden.inputs, golden.expected
    windows = {
        "math": make_window(inputs["weights"], group="math", targets_N=inputs["targets"]),
        "code": make_window(inputs["other_group_weights"], group="code"),
    }

    metrics = group_metrics(windows, geometry_of(inputs["router_weights"]), MetricSettings(per_layer=True))

    assert set(metrics) == {"math", "code"}
    values = metrics["math"].values
    assert values["path_distance"] == pytest.approx(expected["path_distance"]["0.7"])
    for threshold in ("0.5", "0.6", "0.8"):
        name = "path_distance_tau_" + threshold.replace(".", "_")
        assert values[name] == pytest.approx(expected["path_distance"][threshold])
    assert values["path_distance_normalized"] == pytest.approx(expected["path_distance_normalized"])
    assert values["path_distance_cross"] == pytest.approx(expected["cross_path_distance"])
    assert values["path_distance_ratio"] == pytest.approx(expected["path_distance_ratio"])
    assert values["effective_dimension"] == pytest.approx(expected["effective_dimension"]["0.01"])
    assert values["routing_entropy"] == pytest.approx(expected["routing_entropy"])
    assert values["expert_load_max_ratio"] == pytest.approx(max(expected["expert_load_max_ratio"]), rel=1e-7)
    assert values["same_target_pairs"] == expected["same_target_pairs"]
    assert "target_affinity" not in values  # Fewer than 100 pairs.
    np.testing.assert_allclose(metrics["math"].layer_path_distance_L, expected["layer_path_distance"])
    if expected["adjacent_cosine"] is None:
        assert values["path_consistency_samples"] == 0
        assert not {"path_consistency", "path_smoothness", "adjacent_cosine"} & set(values)
    else:
        consistency = np.mean(expected["path_consistency"])
        assert values["path_consistency"] == pytest.approx(consistency, rel=1e-4)
        assert values["path_smoothness"] == pytest.approx(1 - consistency, rel=1e-6)
        assert values["adjacent_cosine"] == pytest.approx(np.mean(expected["adjacent_cosine"]), rel=1e-6)
        assert values["path_consistency_samples"] == len(inputs["weights"])


def test_every_value_there_is(make_weights, make_window):
    targets = np.arange(60) % 3
    window = make_window(
        make_weights(60, 3, 8),
        targets_N=targets,
        target_weights_NLK=make_weights(60, 3, 8, seed=5),
        visits_N=np.arange(60) % 5,
    )
    router = np.random.default_rng(0).normal(size=(3, 8, 4)) + 1
    values = group_metrics(
        {"a": window, "b": make_window(make_weights(50, 3, 8, seed=1))}, geometry_of(router), MetricSettings()
    )["a"].values

    consistency = {"path_consistency", "path_smoothness", "path_consistency_samples", "adjacent_cosine"}
    targets_too = {"target_affinity", "same_target_pairs", "target_effective_dimension"}
    losses = {"unseen_loss", "loss_gap", "loss_gap_stderr"}
    assert set(values) == (
        ALWAYS | PAIRED | CROSS | {"path_distance_stderr"} | consistency | targets_too | losses
    )
    assert all(re.fullmatch("[a-z0-9_]+", name) for name in values)


def test_target_metrics_use_target_tokens(make_window):
    # Over all tokens routing is the same for every sample; over target tokens it follows the target, in the
    # last layer. In the first it follows something else.
    targets, something_else = np.arange(60) % 4, np.arange(60) // 4 % 4
    window = make_window(
        np.full((60, 2, 4), 0.25, np.float32),
        targets_N=targets,
        target_weights_NLK=np.eye(4, dtype=np.float32)[np.stack([something_else, targets], axis=1)],
    )
    values = group_metrics({"a": window}, None, MetricSettings())["a"].values
    assert values["target_affinity"] == 0
    assert values["target_effective_dimension"] > 3 > 1 > values["effective_dimension"]


def test_one_sample_alone(make_weights, make_window):
    values = group_metrics({"a": make_window(make_weights(1, 3, 8))}, None, MetricSettings())["a"].values
    assert set(values) == ALWAYS


def test_one_sample_beside_another_group_has_a_cross_distance_but_no_ratio(make_weights, make_window):
    metrics = group_metrics(
        {"one": make_window(make_weights(1, 3, 8)), "many": make_window(make_weights(9, 3, 8, seed=1))},
        None,
        MetricSettings(),
    )
    assert set(metrics["one"].values) == ALWAYS | {"path_distance_cross"}
    assert set(metrics["many"].values) == ALWAYS | PAIRED | CROSS | {"path_distance_stderr"}


def test_a_window_without_samples(make_weights, make_window):
    metrics = group_metrics(
        {"none": make_window(make_weights(0, 3, 8)), "many": make_window(make_weights(9, 3, 8))},
        None,
        MetricSettings(per_layer=True),
    )
    assert metrics["none"].values == {"window_samples": 0}
    assert metrics["none"].layer_path_distance_L is None
    assert not CROSS & set(metrics["many"].values)


def test_no_ratio_to_a_cross_distance_of_zero(make_window):
    uniform = np.full((4, 2, 8), 1 / 8, np.float32)
    metrics = group_metrics({"a": make_window(uniform), "b": make_window(uniform)}, None, MetricSettings())
    assert metrics["a"].values["path_distance_cross"] == 0
    assert "path_distance_ratio" not in metrics["a"].values


def test_one_expert(make_window):
    window = make_window(np.ones((5, 2, 1), np.float32), targets_N=np.zeros(5, np.int32))
    values = group_metrics({"a": window}, None, MetricSettings())["a"].values
    assert values["path_distance"] == 0
    assert values["routing_entropy"] == 0
    assert values["expert_load_max_ratio"] == 1


def test_other_groups_count_alike_however_large(make_weights, make_window):
    weights = {
        "a": make_weights(20, 3, 8),
        "b": make_weights(30, 3, 8, seed=1),
        "c": make_weights(4, 3, 8, seed=2),
    }
    windows = {group: make_window(weights_NLK, group=group) for group, weights_NLK in weights.items()}

    def cross(*groups: str) -> float:
        chosen = {group: windows[group] for group in groups}
        return group_metrics(chosen, None, MetricSettings())["a"].values["path_distance_cross"]

    assert cross("a", "b", "c") == pytest.approx((cross("a", "b") + cross("a", "c")) / 2)


def test_cross_group_pairs_per_group_do_not_grow_with_the_number_of_groups(
    make_weights, make_window, monkeypatch
):
    compared = 0

    def counting(firsts, seconds, **options):
        nonlocal compared
        compared += len(firsts)
        return cpdist(firsts, seconds, **options)

    cpdist = distance.cpdist
    monkeypatch.setattr(distance, "cpdist", counting)
    settings = MetricSettings(thresholds=(0.7,), min_pairs=1024, max_pairs=1024)
    for groups in (2, 5, 9):
        compared = 0
        group_metrics(
            {str(seed): make_window(make_weights(130, 4, 16, seed=seed)) for seed in range(groups)},
            None,
            settings,
        )
        # Each group's own 1024 pairs, and as many with others, each of them shared by two groups.
        assert groups * 1024 <= compared <= groups * (1024 + 1024)


def test_the_first_threshold_is_the_published_one(make_weights, make_window):
    windows = {"a": make_window(make_weights(20, 3, 8))}
    published, other = (
        group_metrics(windows, None, MetricSettings(thresholds=thresholds))["a"].values
        for thresholds in ((0.5, 0.7), (0.7, 0.5))
    )
    assert published["path_distance"] == other["path_distance_tau_0_5"]
    assert published["path_distance_tau_0_7"] == other["path_distance"]
    assert "path_distance_tau_0_6" not in published


@pytest.mark.parametrize(("n", "large_model"), [(40, 8192), (200, 8192), (200, 32)])
def test_the_same_round_gives_the_same_numbers_to_the_bit(
    make_weights, make_window, monkeypatch, n, large_model
):
    monkeypatch.setattr(arrays, "LARGE_MODEL", large_model)

    def compute():
        windows = {
            name: make_window(make_weights(n, 4, 16, seed=seed), targets_N=np.arange(n) % 7)
            for seed, name in enumerate("abc")
        }
        return group_metrics(windows, None, MetricSettings())

    assert {g: dict(m.values) for g, m in compute().items()} == {
        g: dict(m.values) for g, m in compute().items()
    }


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 12),
    layers=st.integers(1, 3),
    experts=st.integers(1, 6),
    kind=st.sampled_from(["random", "one-hot", "uniform", "duplicated"]),
)
def test_values_are_finite_and_independent_of_sample_order(make_window, seed, n, layers, experts, kind):
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.ones(experts), size=(n, layers)).astype(np.float32)
    if kind == "one-hot":
        weights = np.eye(experts, dtype=np.float32)[generator.integers(experts, size=(n, layers))]
    elif kind == "uniform":
        weights[:] = 1 / experts
    elif kind == "duplicated":
        weights = np.concatenate([weights, weights])
    geometry = geometry_of(generator.normal(size=(layers, experts, 5)))
    targets = generator.integers(-1, 3, size=len(weights))
    losses = generator.exponential(size=len(weights))
    order = generator.permutation(len(weights))

    def compute(rows):
        window = make_window(weights[rows], targets_N=targets[rows], losses_N=losses[rows])
        others = make_window(weights[::2])
        return group_metrics({"a": window, "b": others}, geometry, MetricSettings(per_layer=True))["a"]

    straight, shuffled = compute(np.arange(len(weights))), compute(order)

    assert np.isfinite(list(straight.values.values())).all()
    assert set(shuffled.values) == set(straight.values)
    for name, value in straight.values.items():
        assert shuffled.values[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name
    if len(weights) > 1:
        assert straight.layer_path_distance_L.shape == (layers,)
        np.testing.assert_array_equal(straight.layer_path_distance_L, shuffled.layer_path_distance_L)
    else:
        assert straight.layer_path_distance_L is None


def test_the_order_of_samples_changes_nothing_where_all_pairs_are_compared(make_weights, make_window):
    weights = make_weights(150, 3, 8)
    pairs = 150 * 149 // 2
    for most, same in ((pairs, True), (pairs - 1, False)):
        straight, turned = (
            group_metrics({"a": make_window(some)}, None, MetricSettings(max_pairs=most))["a"].values
            for some in (weights, weights[::-1])
        )
        for name in ("path_distance", "path_distance_stderr", "path_distance_tau_0_5"):
            assert (straight[name] == turned[name]) is same, name


def test_groups_whose_pathways_differ_little_need_few_pairs(make_weights, make_window, monkeypatch):
    """Long pathways: each compared pair costs much and says as much as many short ones."""
    compared = []
    cpdist = distance.cpdist

    def counting(firsts, seconds, **options):
        compared.append(len(firsts))
        return cpdist(firsts, seconds, **options)

    chosen = MetricSettings(target_stderr=0.01)
    for layers, fewer in ((120, True), (2, False)):
        windows = (make_window(make_weights(140, layers, 16, seed=seed)) for seed in (1, 2))
        first, other = (group_part(window, None, chosen) for window in windows)
        compared.clear()
        with monkeypatch.context() as patch:
            patch.setattr(distance, "cpdist", counting)
            found = cross_distance(first, other, 8, chosen)
        exact = cross_path_distance(first.pathways_N, other.pathways_N, PairBudget(max_pairs=10**6))
        assert found == pytest.approx(exact, rel=3 * 0.01 * 7**0.5)
        assert (sum(compared) < chosen.pair_budget.shared(7).first_pairs) == fewer
