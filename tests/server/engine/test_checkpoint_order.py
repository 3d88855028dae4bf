"""The ranking of checkpoints does not depend on the order they were registered in, nor on a restart."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from pathwatch.server.phases.verdict import Checkpoint

SAVED_TWICE = [
    Checkpoint(step=1, tag="early", attempt=0),
    Checkpoint(step=2, tag="by the first attempt", attempt=0),
    Checkpoint(step=2, tag="again, before the second went on", attempt=1),
]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_whatever_the_order(bench: Any, make_batch: Any, eventually: Any, order: tuple[int, ...]) -> None:
    bench.create()
    for attempt, steps in ((0, (1, 2)), (1, (3,))):
        rank = bench.join(attempt=attempt, session=f"life {attempt}")
        for step in steps:
            rank.observe(make_batch(step))
            rank.watermark(step)
        eventually(lambda step=step: bench.view().run.closed_step == step)
    for which in order:
        bench.engine.register_checkpoint("run", SAVED_TWICE[which]).result(30)

    def tags() -> list[str]:
        return [place.checkpoint.tag for place in bench.engine.rank_checkpoints("run", None, 0).result(30)]

    assert tags() == ["by the first attempt", "again, before the second went on", "early"]
    bench.restart()
    assert tags() == ["by the first attempt", "again, before the second went on", "early"]
