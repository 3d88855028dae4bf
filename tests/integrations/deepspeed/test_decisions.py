"""What the script is told: checkpoints once each, a stop on every rank at the same step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pathwatch.integrations.deepspeed import Probe, ProbeGroup, attach

TOKENS = torch.randint(16, (4, 6), generator=torch.Generator().manual_seed(1))
PROBE = Probe(
    groups={"a": ProbeGroup(inputs={"tokens": TOKENS}, sample_ids=torch.arange(4))},
    interval=5,
    shift_labels=False,
)


def steps(engine: Any, count: int) -> None:
    for _ in range(count):
        engine.backward(engine(TOKENS).square().mean())
        engine.step()


def test_each_request_for_a_checkpoint_is_answered_once(
    make_engine: Callable, streams: list, signal: Callable
) -> None:
    engine = make_engine()
    asked = []
    with attach(engine, run="r", probe=PROBE, check_interval=2) as watch:
        for step in range(1, 21):
            steps(engine, 1)
            if step == 3:
                streams[0].signal = signal("CHECKPOINT", step=0, revision=1)
            if step == 9:
                # The same round again, with another reason: no new request.
                streams[0].signal = signal("CHECKPOINT", step=0, revision=2, reason="more")
            if step == 13:
                streams[0].signal = signal("CHECKPOINT", step=10, revision=3)
            if watch.should_checkpoint():
                assert watch.should_checkpoint()
                asked.append(step)
                watch.checkpoint_saved(f"tag{step}")
    assert len(asked) == 2
    assert 3 < asked[0] <= 6
    assert 13 < asked[1] <= 16
    assert streams[0].of("checkpoint") == [{"step": step, "tag": f"tag{step}"} for step in asked]


def test_a_request_waits_for_a_script_that_asks_rarely(
    make_engine: Callable, streams: list, signal: Callable
) -> None:
    engine = make_engine()
    with attach(engine, run="r", probe=PROBE, check_interval=1) as watch:
        watch.begin()
        streams[0].signal = signal("CHECKPOINT", step=0)
        steps(engine, 3)
        streams[0].signal = signal("CONTINUE", step=5)
        steps(engine, 6)
        assert watch.should_checkpoint()
        steps(engine, 1)
        assert not watch.should_checkpoint()


def test_stop_comes_at_its_step_with_a_last_checkpoint(
    make_engine: Callable, streams: list, signal: Callable
) -> None:
    engine = make_engine()
    with attach(engine, run="r", probe=PROBE, check_interval=2) as watch:
        watch.begin()
        streams[0].signal = signal("STOP", step=0, stop_at_step=8)
        for step in range(1, 8):
            steps(engine, 1)
            assert not watch.should_stop(), step
        steps(engine, 1)
        assert watch.should_stop()
        assert watch.should_checkpoint()


def test_a_stale_signal_is_not_acted_on(make_engine: Callable, streams: list, signal: Callable) -> None:
    engine = make_engine()
    with attach(engine, run="r", probe=PROBE, check_interval=1) as watch:
        watch.begin()
        streams[0].signal = signal("STOP", step=0, stop_at_step=2, stale=True)
        steps(engine, 5)
        assert not watch.should_stop()


def test_the_service_is_asked_for_a_stop_far_enough_ahead(make_engine: Callable, streams: list) -> None:
    with attach(make_engine(), run="r", probe=PROBE, check_interval=25) as watch:
        watch.begin()
    assert streams[0].settings["config"].stop_margin_steps > 25


SCRIPT = Path(__file__).with_name("two_ranks.py")


@pytest.mark.slow
def test_two_ranks_decide_at_the_same_steps_and_share_the_probe(run_two_ranks: Callable) -> None:
    first, second = run_two_ranks(SCRIPT, "signals")
    assert first["checkpoints"] == second["checkpoints"]
    assert len(first["checkpoints"]) == 2
    assert first["stopped_at"] == second["stopped_at"] == 20
    # Seven samples over two ranks: every one once, and both ranks made as many forward passes.
    assert sorted(first["sample_ids"] + second["sample_ids"]) == list(range(7))
    assert first["forward_passes"] == second["forward_passes"]
    assert first["watermarks"] == second["watermarks"] == [0, 5, 10, 15, 20]
    # Rank 0 trained on sample 0 at every step, rank 1 on samples 0 and 1.
    visits = first["visits"] | second["visits"]
    assert visits == {"0": 40, "1": 20, **{str(i): 0 for i in range(2, 7)}}
    assert (first["geometry"], second["geometry"]) == (5, 0)


@pytest.mark.slow
def test_a_rank_that_fails_takes_no_other_with_it(run_two_ranks: Callable) -> None:
    """Rank 1 cannot read its share: both train to the end, neither waits for the other."""
    first, second = run_two_ranks(SCRIPT, "failure")
    assert first["losses"] == second["losses"]
    assert len(first["losses"]) == 20
    assert first["stopped_at"] is second["stopped_at"] is None
    assert second["watermarks"] == []
    assert first["watermarks"] == [0]
