import numpy as np
import pytest

from pathwatch.server.phases.detector import PathwayDropDetector
from pathwatch.server.phases.drop import Row
from pathwatch.server.phases.evidence import measure, read
from pathwatch.server.phases.joint import MEMORIZED_AFFINITY, onset_when_memorized
from pathwatch.server.phases.verdict import Phase

PEAK = 3.0
"""A log effective dimension far above that of the windows here."""


def readings(make_window, **changes):
    return [read(measure(make_window(10 * t, **changes))) for t in range(3)]


def test_shared_routing_at_memorization_is_an_onset_with_a_reference_not_yet_shared(make_window):
    onset = onset_when_memorized(20, readings(make_window, shared=1.5, own=0.3), PEAK)
    assert onset is not None
    assert onset.step == 20
    assert onset.reference[Row.SHARING, 0] == pytest.approx(np.log(MEMORIZED_AFFINITY))
    assert onset.reference[Row.LOSS, 0] == pytest.approx(0.05, rel=0.2)


@pytest.mark.parametrize(
    "changes",
    [
        {"shared": 0.3, "own": 1.0},
        {"shared": 1.5, "own": 0.3, "targets": False},
        {"shared": 1.5, "own": 0.3, "samples": 10},
    ],
    ids=["apart", "no targets", "too few samples"],
)
def test_else_there_is_none(make_window, changes):
    assert onset_when_memorized(20, readings(make_window, **changes), PEAK) is None


def test_one_window_without_routing_is_not_passed_over(make_window):
    shared = readings(make_window, shared=1.5, own=0.3)
    assert onset_when_memorized(20, [*shared[:2], *readings(make_window, samples=10)[:1]], PEAK) is None


def test_routing_that_has_not_condensed_yet_is_only_memorized(make_window):
    shared = readings(make_window, shared=1.5, own=0.3)
    peak = float(shared[-1].dimension_B[0]) + 0.1
    assert onset_when_memorized(20, shared, peak) is None


def test_a_group_that_generalizes_while_it_is_memorized_is_found_and_can_settle(make_window, play, history):
    detector = PathwayDropDetector()
    rounds = []
    for t in range(80):
        learned = min(t / 20, 1.0)
        loss = 3.0 * 0.02 ** min(max(t - 15, 0) / 10, 1.0)
        window = make_window(10 * t, shared=0.3 + 0.5 * learned, own=1.0 - 0.7 * learned, loss=loss)
        rounds.append({"g": detector.measure(window)})
    phases = [phase for phase, _ in history(play(range(0, 800, 10), rounds, detector), "g")]
    assert phases == [Phase.UNKNOWN, Phase.LEARNING, Phase.GENERALIZING, Phase.GENERALIZED]
