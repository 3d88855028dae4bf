"""Verdicts in words that a person understands without having read the paper."""

from __future__ import annotations

from pathwatch.server.phases.drop import Drop
from pathwatch.server.phases.guard import UnseenLoss
from pathwatch.server.phases.memorized import FITTED_LOSS, FITTED_SHARE
from pathwatch.server.phases.sharing import MIN_BINS, SharingWatch, Stage


def too_few_windows(points: int, needed: int) -> str:
    """For UNKNOWN."""
    return f"Only {points} of the {needed} windows needed so far."


def learning(share: float) -> str:
    """For LEARNING; `share` of the samples is fitted."""
    return (
        f"{share:.0%} of the training samples are fitted (loss under {FITTED_LOSS:.2f} nats); "
        f"the group counts as memorized from {FITTED_SHARE:.0%}."
    )


def overfitting(unseen: UnseenLoss, watching: bool) -> str:
    """For OVERFITTING; `watching` = the samples are still unseen."""
    when = "is" if watching else "was, when they were last unseen,"
    return (
        f"The loss of {unseen.samples} training samples not yet trained on {when} {unseen.loss:.3f}: "
        f"{unseen.rise:.1%} over its minimum at step {unseen.minimum_step} (z = {unseen.z:.1f})."
    )


def routing(watch: SharingWatch, memorized_step: int, by_target: bool, largest_other: float) -> str:
    """For the phases after memorization."""
    if watch.drop is None and watch.onset is not None:
        return f"Routing was shared already when the group was memorized at step {memorized_step}."
    if watch.drop is None:
        return f"Memorized since step {memorized_step}; {MIN_BINS} time bins are needed to compare routing."
    moved = _moved(watch.drop, by_target)
    if watch.onset is None:
        others = f" (the run's other groups: up to {largest_other:.2f})" if largest_other > 0 else ""
        return f"Memorized since step {memorized_step}; {moved}{others}: not enough to speak of sharing."
    if watch.stage is Stage.COLLAPSED:
        return (
            f"Training loss rose to {watch.drop.loss:.2f} from {watch.drop.loss_before:.2f}, "
            f"after routing had begun to be shared at step {watch.onset.step}."
        )
    if watch.stage is Stage.SETTLED:
        return f"Since step {watch.onset.step} {moved}; it has settled."
    unfinished = (
        "it has not settled yet"
        if by_target
        else "without targets or unseen samples that is never taken as finished"
    )
    return f"Since step {watch.onset.step} {moved}; {unfinished}."


def unseen(newest: UnseenLoss | None, watching: bool, knows_visits: bool) -> str:
    """What is known about overfitting while there is no sign of it."""
    if not knows_visits:
        return "Whether it overfits cannot be told: no visits were reported."
    if newest is None:
        return (
            "Whether it overfits cannot be told: too few samples were watched before training reached them."
        )
    if not watching:
        return "Unseen loss had not risen when training reached the last unseen samples."
    minimum = f"{newest.minimum:.3f} at step {newest.minimum_step}"
    return f"Unseen loss is {newest.loss:.3f}, its minimum was {minimum}."


def _moved(drop: Drop, by_target: bool) -> str:
    whose = "samples with the same target" if by_target else "samples"
    together = "drawn together" if drop.size >= 0 else "drifted apart"
    return f"routing of {whose} has {together} by {abs(drop.size):.2f} ± {drop.stderr:.2f} (log)"
