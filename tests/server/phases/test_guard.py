import numpy as np
import pytest

from pathwatch.server.phases.guard import MAX_BINS, UnseenLossGuard

IDS = np.arange(32, dtype=np.int64)
OFFSETS = np.random.default_rng(0).normal(scale=0.5, size=32)


def fed(levels, noise=0.02, visits=None, seed=1):
    """A guard that saw unseen losses about these levels, samples differing among themselves."""
    generator = np.random.default_rng(seed)
    guard = UnseenLossGuard()
    for step, level in enumerate(levels):
        losses = level + OFFSETS + generator.normal(scale=noise, size=32)
        guard.take(step, IDS, losses, np.zeros(32, dtype=np.int32) if visits is None else visits(step))
    return guard


def test_falling_and_flat_losses_are_not_overfitting():
    assert not fed(np.linspace(5, 2, 40)).overfitting
    assert not fed([2.0] * 300, noise=0.1).overfitting


def test_a_lasting_rise_is_overfitting_and_names_its_minimum():
    guard = fed([*np.linspace(5, 2, 20), *np.linspace(2, 2.4, 20)])
    assert guard.overfitting
    assert guard.newest.minimum_step == pytest.approx(20, abs=3)
    assert guard.newest.rise == pytest.approx(0.2, abs=0.03)
    assert guard.newest.samples == 32


def test_a_single_bad_step_is_not_overfitting():
    levels = np.linspace(5, 2, 40)
    levels[25] += 0.3
    assert not fed(levels).overfitting


def test_a_rise_within_the_spread_of_samples_is_not_overfitting():
    generator = np.random.default_rng(3)
    guard = UnseenLossGuard()
    drift = generator.normal(scale=1.0, size=32)
    drift -= drift.mean() - 0.05  # the mean rises, but samples go every way
    for step in range(30):
        losses = 3 + OFFSETS + (drift if step > 15 else 0)
        guard.take(step, IDS, losses, np.zeros(32, dtype=np.int32))
    assert guard.newest.rise > 0.005
    assert not guard.overfitting


def test_steps_that_kick_all_samples_at_once_are_not_overfitting():
    """Flat losses under kicks of 1 %: the spread of samples does not show them."""
    wrong = 0
    for seed in range(20):
        kicks = 0.02 * np.random.default_rng(100 + seed).normal(size=90)
        wrong += fed(
            np.r_[np.linspace(5, 2, 30), np.full(60, 2.0)] + kicks, noise=0.05, seed=seed
        ).overfitting
    assert wrong <= 4


def test_a_slow_rise_under_kicks_is_found():
    for seed in range(10):
        kicks = 0.02 * np.random.default_rng(100 + seed).normal(size=70)
        levels = np.r_[np.linspace(5, 2, 30), 2 + 0.004 * np.arange(40)]
        assert fed(levels + kicks, noise=0.05, seed=seed).overfitting


def test_samples_that_training_reached_do_not_pass_for_improvement():
    """Half of the samples are trained on, their loss falls; the rest's loss rises."""
    guard = UnseenLossGuard()
    for step in range(40):
        trained = (np.arange(32) < 16) & (step >= 20)
        losses = 3 + OFFSETS + np.where(np.arange(32) < 16, -0.1, 0.02) * max(0, step - 20)
        guard.take(step, IDS, losses, np.where(trained, 1, 0).astype(np.int32))
    assert guard.overfitting
    assert guard.newest.samples == 16


def test_the_curve_rests_on_all_samples_while_they_were_unseen():
    """Eight samples stay unseen longest; their own minimum is at step 20, that of all 32 at step 12."""
    guard = UnseenLossGuard()
    stays = np.arange(32) >= 24
    levels = np.abs(np.arange(40)[:, None] - np.where(stays, 20, 12)) * 0.05 + 2 + OFFSETS
    for step, losses in enumerate(levels):
        left = stays if step >= 30 else np.ones(32, dtype=bool)
        guard.take(step, IDS, losses, np.where(left, 0, 1).astype(np.int32))
    steps, curve = guard.curve
    assert steps.tolist() == list(range(40))
    np.testing.assert_allclose(curve[:30], levels[:30].mean(axis=1))
    np.testing.assert_allclose(np.diff(curve[29:]), np.diff(levels[29:, stays].mean(axis=1)))


@pytest.mark.parametrize(("levels", "overfits"), [((5, 2, 2.5), True), ((5, 2, 1.5), False)])
def test_after_the_release_the_last_comparison_stands(levels, overfits):
    path = [*np.linspace(levels[0], levels[1], 20), *np.linspace(levels[1], levels[2], 20), *([0.1] * 10)]
    guard = fed(path, visits=lambda step: np.full(32, int(step >= 40), dtype=np.int32))
    assert guard.overfitting is overfits
    assert not guard.watching
    assert guard.curve[0][-1] == 39


def test_without_visits_there_is_nothing_to_say():
    guard = fed(np.linspace(2, 3, 40), visits=lambda step: np.full(32, -1, dtype=np.int32))
    assert guard.newest is None
    assert not guard.overfitting


def test_other_samples_than_before_are_not_compared_with_them():
    guard = UnseenLossGuard()
    for step in range(40):
        guard.take(step, IDS + 32 * step, 2 + 0.1 * step + OFFSETS, np.zeros(32, dtype=np.int32))
    assert guard.newest is None


def test_memory_is_bounded_and_the_minimum_remembered():
    guard = fed([*np.linspace(5, 2, 500), *np.linspace(2, 2.4, 500)])
    assert len(guard.curve[0]) <= MAX_BINS
    assert guard.newest.minimum_step == pytest.approx(500, abs=40)
    assert guard.overfitting


def test_a_probe_of_the_same_samples_is_compared_as_samples_that_come_and_go(monkeypatch):
    rng = np.random.default_rng(3)
    ids, losses = np.arange(40), 2 - 0.01 * np.arange(60)[:, None] + 0.05 * rng.random((60, 40))
    losses[40:] += 0.3
    told = []
    for quick in (True, False):
        if not quick:
            monkeypatch.setattr("pathwatch.server.phases.guard.np.array_equal", lambda *_: False)
        watch = UnseenLossGuard()
        for step, row in enumerate(losses):
            unseen = ids[: 40 - 8 * (step // 20)]
            watch.take(step, unseen, row[: len(unseen)], np.zeros(len(unseen), np.int32))
        told.append((watch.newest, watch.overfitting, *(part.tolist() for part in watch.curve)))
    assert told[0] == told[1]
    assert told[0][1]
