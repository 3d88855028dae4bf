import numpy as np
import pytest

from pathwatch.server.phases.ranking import (
    MAX_LOSSES,
    RULED_OUT,
    LossHistory,
    by_training_loss,
    by_unseen_loss,
    combine,
    newest_first,
    ranked,
    smoothed_at,
)
from pathwatch.server.phases.verdict import Checkpoint

STEPS = np.arange(0, 1001, 50)


def losses(values):
    history = LossHistory()
    for step, loss in zip(STEPS.tolist(), values, strict=True):
        history.take(step, loss)
    return history


def order(steps_C, scores):
    checkpoints = [Checkpoint(step=int(step), tag=f"t{step}", attempt=0) for step in steps_C]
    return [place.checkpoint.step for place in ranked(checkpoints, scores)]


def test_before_anything_is_known_the_newest_is_first():
    assert order(STEPS, newest_first(STEPS)) == STEPS[::-1].tolist()


def test_only_the_last_half_since_onset_is_trusted():
    history = losses(np.where(STEPS < 500, 1e-4, 0.01 + np.abs(STEPS - 900) / 1000))
    scores = by_training_loss(STEPS, history, onset_step=200, step=1000, collapsed=False)
    found = order(STEPS, scores)
    assert found[0] in (900, 950)
    assert set(found[:9]) == set(range(600, 1001, 50))
    assert found[9:] == STEPS[STEPS < 600][::-1].tolist()
    assert (scores.nats_C[STEPS < 600] >= RULED_OUT).all()


def test_of_two_small_losses_the_later_wins_unless_the_earlier_is_clearly_smaller():
    def best(earlier, later):
        values = np.full(len(STEPS), 0.02)
        values[(STEPS >= 600) & (STEPS <= 700)] = earlier
        values[(STEPS >= 850) & (STEPS <= 950)] = later
        scores = by_training_loss(STEPS, losses(values), onset_step=0, step=1000, collapsed=False)
        return order(STEPS, scores)[0]

    assert 850 <= best(earlier=0.010, later=0.010) <= 950
    assert 850 <= best(earlier=0.0095, later=0.010) <= 950
    assert 600 <= best(earlier=0.002, later=0.010) <= 700


def test_after_a_collapse_all_since_onset_is():
    history = losses(np.where(STEPS > 700, 2.0, np.where(STEPS == 600, 0.01, 0.05)))
    scores = by_training_loss(STEPS, history, onset_step=200, step=1000, collapsed=True)
    assert order(STEPS, scores)[0] in (550, 600, 650)
    assert order(STEPS, scores)[-1] == 0


def test_a_lone_small_loss_amid_large_ones_is_luck():
    values = np.full(len(STEPS), 1.0)
    values[STEPS == 700] = 0.05
    values[(STEPS >= 350) & (STEPS <= 450)] = 0.1
    scores = by_training_loss(STEPS, losses(values), onset_step=200, step=1000, collapsed=True)
    assert order(STEPS, scores)[0] in (350, 400, 450)


def test_overfitting_groups_want_the_smallest_unseen_loss():
    unseen = (STEPS[:15], 2 + ((STEPS[:15] - 300) / 500) ** 2)
    scores = by_unseen_loss(STEPS, unseen)
    assert order(STEPS, scores)[0] == 300
    assert scores.nats_C[STEPS == 300] == pytest.approx(0.0)
    assert (scores.nats_C[STEPS > 700] >= RULED_OUT).all(), "released: no longer known"


def test_a_checkpoint_takes_the_loss_of_the_window_before_it():
    curve = (np.array([0, 100, 200]), np.array([3.0, 2.0, 1.0]))
    np.testing.assert_allclose(smoothed_at(curve, 1, np.array([0, 99, 100, 150, 999])), [3, 3, 2, 2, 1])


def test_groups_compromise_in_nats():
    early = by_unseen_loss(STEPS, (STEPS, 2 + 0.002 * np.abs(STEPS - 300)))
    late = by_unseen_loss(STEPS, (STEPS, 2 + 0.0005 * np.abs(STEPS - 800)))
    assert order(STEPS, combine([early, late]))[0] == 300
    learning = newest_first(STEPS, losses(5 - 0.004 * STEPS))
    assert order(STEPS, combine([early, learning]))[0] == 1000, "going back would cost the other more"
    assert order(STEPS, combine([early, newest_first(STEPS)]))[0] == 300, "nothing to say"


def test_no_allowed_checkpoint_at_all_still_gives_the_newest():
    scores = by_training_loss(
        np.array([50, 100]), losses(STEPS * 0.1 + 1), onset_step=600, step=1000, collapsed=False
    )
    assert order(np.array([50, 100]), scores)[0] == 100


def test_history_is_bounded_and_evenly_fine():
    history = LossHistory()
    for step in range(20_000):
        history.take(step, float(step))
    steps, values = history.curve
    assert MAX_LOSSES / 2 <= len(steps) <= MAX_LOSSES
    assert len(set(np.diff(steps))) == 1
    np.testing.assert_allclose(values, steps - (steps[1] - steps[0] - 1) / 2)
