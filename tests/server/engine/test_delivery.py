"""What `test_delivery_machine.py` found, as short stories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pathwatch.client.tensors import to_tensor


@pytest.fixture
def play(bench: Any, make_batch: Any, eventually: Any) -> Any:
    """A lone rank goes through steps, and waits until they are judged."""

    def play(*steps: int, attempt: int = 0) -> Any:
        rank = bench.join(attempt=attempt)
        for step in steps:
            rank.observe(make_batch(step))
            rank.watermark(step)
        eventually(lambda: bench.view().run.closed_step == max(steps))
        return rank

    bench.create()
    return play


def steps(bench: Any) -> list[int]:
    return [row.step for row in bench.store.windows("run")]


def test_a_refused_message_supersedes_nothing(
    bench: Any, play: Any, make_batch: Any, eventually: Any
) -> None:
    play(10, 20)
    rank = bench.join(attempt=1)
    twice = make_batch(5, n=2)
    twice.sample_ids.CopyFrom(to_tensor(np.array([3, 3])))
    twice.fragment.token_parts = 2
    sequence = rank.observe(twice)
    eventually(lambda: rank.acked == sequence)
    assert [refusal.field for refusal in rank.rejected] == ["batch.sample_ids"]
    assert steps(bench) == [10, 20]
    assert bench.view().run.closed_step == 20
