"""A run that is finished after a restart closes its last window as it would have without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pathwatch.server.sketch.hashing import sample_hash
from pathwatch.v1 import run_pb2

STREAM = {"mode": run_pb2.OBSERVATION_MODE_STREAM, "window_steps": 10, "capacity": 8}


@pytest.mark.parametrize("restarted", [False, True])
def test_steps_of_which_no_sample_was_kept_count(
    bench: Any, make_batch: Any, eventually: Any, restarted: bool
) -> None:
    """All ranks are at step 5, but one has sent samples of step 7, which the window had no room for."""
    bench.create(**STREAM)
    ids_N = np.arange(1000)
    hashes_N = sample_hash("run", "math", ids_N)
    kept, beyond = (int(ids_N[i]) for i in (hashes_N.argmin(), hashes_N.argmax()))
    ranks = [bench.join(rank, 2, session=f"life {rank}") for rank in range(2)]
    for rank in ranks:
        rank.observe(make_batch(5, n=8, first_id=kept))
        rank.watermark(5)
    last = ranks[0].observe(make_batch(7, n=1, first_id=beyond))
    eventually(lambda: ranks[0].acked == last)
    assert (ranks[0].last_ack.accepted, bench.view().run.step) == (9, 7)
    if restarted:
        bench.restart()
    bench.engine.finish_run("run").result(30)
    [window] = bench.store.windows("run")
    assert (window.metrics["window_samples"], window.partial, window.judged) == (8, True, False)
