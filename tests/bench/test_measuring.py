"""One pass over a trace, whole or damaged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.signal.measuring import measure_run
from bench.signal.variants import VARIANTS
from pathwatch.server.metrics.distance import path_distance
from pathwatch.server.metrics.pairs import PairBudget
from pathwatch.server.metrics.pathways import pathways, rank_experts
from pathwatch.server.phases.detector import PathwayDropDetector
from pathwatch.server.report.labels import Labels
from pathwatch.server.traces import Trace, load_trace

TRACES = Path(__file__).parents[1] / "data" / "traces"


@pytest.fixture
def trace():
    """5 log points, 2 groups, 20 samples, 2 layers, 4 experts."""
    generator = np.random.default_rng(0)
    weights = generator.dirichlet(np.ones(4), size=(5, 2, 20, 2)).astype(np.float32)
    losses = np.tile(np.linspace(0.1, 2.0, 20, dtype=np.float32), (5, 2, 1))
    losses[2, 1, :10] = np.nan
    losses[3, 1] = np.nan
    return Trace(
        name="tiny",
        steps_T=np.array([0, 10, 20, 30, 40]),
        groups=("a", "b"),
        losses_TGN=losses,
        weights_TGNLK=weights,
        targets_GN=np.tile(np.arange(20, dtype=np.int32) % 3, (2, 1)),
        visits_TGN=np.ones((5, 2, 20), dtype=np.int32),
        meta={},
    )


@pytest.fixture
def labels():
    scores = np.stack([np.arange(5) / 10, np.full(5, 0.3)], axis=1)
    return Labels(measure="test accuracy", steps_T=np.arange(5) * 10, groups=("a", "b"), scores_TG=scores)


def test_losses_and_shares_are_of_the_samples_that_have_a_loss(trace, labels):
    run = measure_run(trace, labels)
    everyone = np.linspace(0.1, 2.0, 20)
    assert run.losses_TG[0, 0] == pytest.approx(everyone.mean(), abs=1e-6)
    assert run.losses_TG[2, 1] == pytest.approx(everyone[10:].mean(), abs=1e-6)
    assert np.isnan(run.losses_TG[3, 1])
    assert run.memorized_TG[0, 0] == pytest.approx(6 / 20), "0.1 … 0.6 are below ln 2"
    assert run.memorized_TG[2, 1] == 0
    assert np.isnan(run.memorized_TG[3, 1])


def test_metrics_and_evidence_are_those_of_the_windows(trace, labels):
    run = measure_run(trace, labels)
    distance = path_distance(pathways(rank_experts(trace.weights_TGNLK[4, 1]), 0.7), PairBudget())
    assert run.metrics["path_distance"][4, 1] == pytest.approx(distance.mean)
    assert run.metrics["path_distance_normalized"][4, 1] == pytest.approx(distance.normalized)
    assert np.isnan(run.metrics["path_consistency"]).all(), "the trace holds no router weights"
    assert len(run.rounds) == 5
    detector = PathwayDropDetector()
    for step, round_ in zip(run.steps_T.tolist(), run.rounds, strict=True):
        assert set(detector.update(step, round_)) == {"a", "b"}


def test_scores_are_smoothed_accuracy_at_the_points_of_the_trace(trace, labels):
    run = measure_run(trace, labels)
    np.testing.assert_allclose(run.scores_TG[:, 0], [0.1, 0.15, 0.2, 0.25, 0.3])
    rising = replace(labels, measure="validation loss")
    np.testing.assert_allclose(measure_run(trace, rising).scores_TG[:, 0], np.arange(5) / 10)


def test_a_damaged_trace_keeps_the_scores_of_its_points(trace, labels):
    whole = measure_run(trace, labels)
    thinned = measure_run(trace, labels, variant="thinned")
    np.testing.assert_array_equal(thinned.steps_T, [0, 20, 40])
    np.testing.assert_array_equal(thinned.scores_TG, whole.scores_TG[::2])
    repeated = measure_run(trace, labels, variant="repeated")
    assert repeated.steps_T[:9].tolist() == [0, 10, 20, 30, 40, 50, 60, 70, 80]
    assert repeated.planned_steps == 390
    np.testing.assert_array_equal(repeated.scores_TG, np.repeat(whole.scores_TG, 8, axis=0))
    far = measure_run(trace, labels, variant="steps-x250")
    assert far.steps_T.tolist() == [0, 2500, 5000, 7500, 10000]
    np.testing.assert_array_equal(far.scores_TG, whole.scores_TG)


def test_samples_targets_and_visits_can_be_withheld(trace):
    assert VARIANTS["half-samples"](trace).trace.samples == 10
    assert VARIANTS["no-targets"](trace).trace.targets_GN is None
    assert VARIANTS["no-visits"](trace).trace.visits_TGN is None


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_of_a_recorded_trace_is_a_trace(variant):
    damaged = VARIANTS[variant](load_trace(TRACES / "text_deferred_bS_s2.npz"))
    trace = damaged.trace
    T, G, N = trace.losses_TGN.shape
    assert len(trace.steps_T) == len(damaged.points_T) == T
    assert (np.diff(trace.steps_T) > 0).all()
    assert trace.weights_TGNLK.shape[:3] == (T, G, N)
    for optional, shape in ((trace.targets_GN, (G, N)), (trace.visits_TGN, (T, G, N))):
        assert optional is None or optional.shape == shape
    for gram in (trace.gram_self_TLKK, trace.gram_next_TLKK):
        assert gram is None or len(gram) == T


def test_a_group_without_labels_is_refused(trace, labels):
    with pytest.raises(ValueError, match="tiny: group 'b' has no labels"):
        measure_run(trace, replace(labels, groups=("a",), scores_TG=labels.scores_TG[:, :1]))


def test_a_repeated_point_has_the_metrics_of_the_point(trace, labels):
    whole, repeated = measure_run(trace, labels), measure_run(trace, labels, variant="repeated")
    for name, metric_TG in whole.metrics.items():
        np.testing.assert_array_equal(repeated.metrics[name], np.repeat(metric_TG, 8, axis=0))
