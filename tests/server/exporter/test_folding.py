"""Groups beyond the limit, folded, against sums written out here."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_views import START, Group, run_view

from pathwatch.server.exporter.folding import GroupState, fold, folded_names, group_states
from pathwatch.server.phases.verdict import Phase

SUMS = ["window_samples", "path_consistency_samples", "same_target_pairs"]
MEANS = [
    "path_distance",
    "path_distance_normalized",
    "path_distance_tau_0_5",
    "path_consistency",
    "path_smoothness",
    "adjacent_cosine",
    "routing_entropy",
    "train_loss",
    "unseen_loss",
    "loss_gap",
    "memorized_ratio",
]
LEFT_OUT = [
    "path_distance_cross",
    "path_distance_ratio",
    "effective_dimension",
    "target_effective_dimension",
    "target_affinity",
    "expert_load_max_ratio",
    "somebodys_plugin",
]
NUMBERS = st.floats(-1e6, 1e6).map(lambda value: round(value, 6))


@st.composite
def windows(draw: st.DrawFn) -> dict[str, float]:
    metrics = {name: draw(NUMBERS) for name in draw(st.sets(st.sampled_from([*MEANS, *LEFT_OUT])))}
    for error in ("path_distance_stderr", "loss_gap_stderr"):
        if draw(st.booleans()):
            metrics[error] = abs(draw(NUMBERS))
    return metrics | {name: float(draw(st.integers(0, 10_000))) for name in SUMS}


def state(metrics: dict[str, float], name: str = "g") -> GroupState:
    view = run_view("run", [Group(name=name, metrics=metrics)])
    return group_states(view, view.signal(START), 1)[0]


@pytest.mark.slow
@given(st.lists(windows(), min_size=1, max_size=6))
def test_metrics_are_folded_by_the_samples_of_their_windows(all_metrics: list[dict[str, float]]) -> None:
    folded = fold([state(metrics) for metrics in all_metrics]).metrics
    assert not set(LEFT_OUT) & set(folded)
    for name in SUMS:
        assert folded[name] == sum(metrics[name] for metrics in all_metrics)
    for name in MEANS:
        parts = [metrics for metrics in all_metrics if name in metrics]
        samples = sum(part["window_samples"] for part in parts)
        if not samples:
            assert name not in folded
            continue
        assert folded[name] == pytest.approx(
            sum(part[name] * part["window_samples"] / samples for part in parts), rel=1e-9, abs=1e-6
        )
        values = [part[name] for part in parts if part["window_samples"]]
        assert min(values) - 1e-6 <= folded[name] <= max(values) + 1e-6
        if (error := name + "_stderr") in folded:
            variance = sum((part[error] * part["window_samples"] / samples) ** 2 for part in parts)
            assert folded[error] == pytest.approx(variance**0.5, rel=1e-9, abs=1e-6)
        elif name in ("path_distance", "loss_gap"):
            assert any(error not in part for part in parts)


@given(st.permutations([state({"path_distance": float(n), "window_samples": 10.0 + n}) for n in range(5)]))
def test_the_order_of_groups_does_not_matter(states: list[GroupState]) -> None:
    assert fold(states) == fold(sorted(states, key=lambda one: one.metrics["path_distance"]))


def test_a_fold_by_hand() -> None:
    few = {"path_distance": 2.0, "path_distance_stderr": 0.3, "window_samples": 100.0}
    many = {"path_distance": 6.0, "path_distance_stderr": 0.1, "window_samples": 300.0}
    view = run_view(
        "run",
        [
            Group(name="kept", best=7),
            Group(name="few", metrics=few, layers=(1.0, 2.0), step=30, since_step=5, best=7, changes=2),
            Group(name="many", metrics=many, layers=(3.0, 4.0), partial=True, since_step=20, changes=1),
            Group(name="new", step=None, phase=None),
        ],
    )
    kept, other = group_states(view, view.signal(START), 1)
    assert (kept.name, kept.best_checkpoint_step) == ("kept", 7)
    assert other == GroupState(
        name="other",
        metrics={
            "path_distance": pytest.approx(5.0),
            "path_distance_stderr": pytest.approx((0.075**2 + 0.075**2) ** 0.5),
            "window_samples": 400.0,
        },
        layer_path_distance=[2.5, 3.5],
        window_step=30,
        window_partial=True,
        phase=Phase.LEARNING,
        since_step=20,
        best_checkpoint_step=None,
        phase_changes=3,
    )


def test_groups_in_different_phases_are_together_in_none() -> None:
    learning, memorized = (
        replace(state({}), phase=phase, since_step=3) for phase in (Phase.LEARNING, Phase.MEMORIZED)
    )
    both = fold([learning, memorized])
    assert (both.phase, both.since_step) == (Phase.UNKNOWN, None)
    same = fold([memorized, memorized])
    assert (same.phase, same.since_step) == (Phase.MEMORIZED, 3)


def test_groups_of_which_nothing_is_known_yet_say_nothing_together() -> None:
    view = run_view("run", [Group(name=name, step=None, phase=None) for name in "ab"])
    (other,) = group_states(view, view.signal(START), 0)
    assert (other.phase, other.since_step, other.window_step, other.metrics) == (None, None, None, {})


def test_the_groups_that_came_first_keep_their_series() -> None:
    assert folded_names(["z", "a"], 2) == (["z", "a"], [])
    assert folded_names(["z", "a", "b"], 2) == (["z", "a"], ["b"])
    assert folded_names(["z", "a", "b", "0"], 2) == (["z", "a"], ["b", "0"])


def test_a_group_called_other_goes_with_the_others() -> None:
    assert folded_names(["other", "a"], 2) == (["other", "a"], [])
    assert folded_names(["other", "a", "b"], 2) == (["a"], ["b", "other"])
    assert folded_names(["a", "b", "other"], 2) == (["a", "b"], ["other"])


@given(st.lists(st.sampled_from(["other", *"abcdefgh"]), unique=True), st.integers(1, 10))
def test_every_group_is_published_once(groups: list[str], most: int) -> None:
    own, folded = folded_names(groups, most)
    assert sorted([*own, *folded]) == sorted(groups)
    assert len(own) <= most
    assert not folded or "other" not in own
    for later in range(len(groups)):
        before, _ = folded_names(groups[:later], most)
        assert set(before) - {"other"} <= set(own), "a series changed its meaning"
