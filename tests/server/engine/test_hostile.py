"""Numbers and texts that once killed, stalled or filled the service, or could: refused, and it goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathwatch.server.config import Limits
from pathwatch.server.engine.refusal import MAX_MESSAGE, Code, RefusedError, one_line
from pathwatch.server.engine.run_config import MAX_METRICS, violations
from pathwatch.server.engine.streams import Watermark
from pathwatch.v1 import run_pb2

TOPOLOGY = run_pb2.Topology(layers=2, experts=4)
HUGE = 2**64 - 1


def test_a_sequence_beyond_what_can_be_stored(bench: Any, make_batch: Any, eventually: Any) -> None:
    bench.create()
    rank = bench.join()
    rank.send(Watermark(step=0), sequence=HUGE)
    rank.send(Watermark(step=0), sequence=2**63)
    good = rank.observe(make_batch(1))
    eventually(lambda: rank.acked == good)
    assert [refusal.field for refusal in rank.rejected] == ["sequence", "sequence"]
    bench.restart()
    assert bench.join().stream.acked == good


def test_a_grace_time_of_weeks(bench: Any, make_batch: Any, eventually: Any) -> None:
    """Waiting for longer than the clock can count ended the writer thread, and with it the service."""
    for grace_seconds in (1e10, 1e300):
        with pytest.raises(RefusedError) as refused:
            bench.create(grace_seconds=grace_seconds)
        assert refused.value.field == "config.grace_seconds"
    bench.create(grace_seconds=30 * 86400)
    rank = bench.join(world_size=2)
    rank.observe(make_batch(1))
    rank.watermark(1)  # the other rank is waited for
    last = rank.observe(make_batch(2))
    eventually(lambda: rank.acked == last)
    later = rank.watermark(2)
    eventually(lambda: rank.acked == later)


def test_steps_at_the_end_of_the_range(bench: Any, make_batch: Any, eventually: Any) -> None:
    """With the largest step, the largest window and the largest margin everything still fits 64 bits."""
    largest = 2**53 - 1
    bench.create(mode=run_pb2.OBSERVATION_MODE_STREAM, window_steps=largest, stop_margin_steps=largest)
    rank = bench.join()
    rank.observe(make_batch(largest))
    last = rank.watermark(largest)
    eventually(lambda: rank.acked == last)
    assert rank.rejected == []
    bench.engine.finish_run("run").result(30)
    assert bench.view().run.closed_step >= largest
    bench.restart()
    assert bench.view().run.closed_step >= largest


@pytest.mark.parametrize("number", [1001, 2**32 - 1])
def test_an_attempt_far_ahead_ends_nobody(bench: Any, make_batch: Any, eventually: Any, number: int) -> None:
    bench.create()
    rank = bench.join()
    with pytest.raises(RefusedError) as refused:
        bench.join(attempt=number)
    assert (refused.value.code, refused.value.field) == (Code.INVALID_ARGUMENT, "attempt")
    with pytest.raises(RefusedError):
        bench.create(attempt=number)
    last = rank.observe(make_batch(1))
    eventually(lambda: rank.acked == last)
    assert rank.ended is None
    assert bench.view().run.attempt == 0


def test_a_new_run_does_not_begin_at_an_attempt_that_none_can_follow(bench: Any) -> None:
    with pytest.raises(RefusedError) as refused:
        bench.create("new", attempt=2**32 - 1)
    assert (refused.value.code, refused.value.field) == (Code.INVALID_ARGUMENT, "attempt")
    assert bench.create("new", attempt=999).attempt == 999


def test_an_attempt_a_little_ahead_is_taken(bench: Any) -> None:
    bench.create()
    bench.join(attempt=1000)
    assert bench.view().run.attempt == 1000


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "a margin beyond int64": ({"stop_margin_steps": HUGE}, "config.stop_margin_steps"),
    "a window beyond int64": (
        {"mode": run_pb2.OBSERVATION_MODE_STREAM, "window_steps": HUGE},
        "config.window_steps",
    ),
    "a grace time of ages": ({"grace_seconds": 1e10}, "config.grace_seconds"),
    "a ridge that is no number": ({"ridge": float("nan")}, "config.ridge"),
    "a delta without end": ({"delta": float("inf")}, "config.delta"),
    "too many thresholds to look at each": (
        {"thresholds": np.linspace(0.1, 0.9, 200_000).tolist()},
        "config.thresholds",
    ),
    "too many metrics to look for each": ({"metrics": ["none"] * 9000}, "config.metrics"),
    "a detector of a megabyte": ({"detector": "d" * 10**6}, "config.detector"),
    "an option of a megabyte": ({"policy_options": {"quorum": "1" * 10**6}}, "config.policy_options"),
    "too many options": ({"policy_options": {str(i): "" for i in range(99)}}, "config.policy_options"),
    "a group's name that moves the cursor": (
        {"groups": [run_pb2.GroupSettings(group="\x1b[2Jmath")]},
        "config.groups[0].group",
    ),
    "a group's name that reads backwards": (
        {"groups": [run_pb2.GroupSettings(group="\u202ehtam")]},
        "config.groups[0].group",
    ),
    "a mode of tomorrow": ({"mode": 77}, "config.mode"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_hostile_configuration_is_refused_at_once(bench: Any, case: str) -> None:
    fields, field = CONFIGS[case]
    config = run_pb2.RunConfig(**({"topology": TOPOLOGY} | fields))
    found = violations("run", config, Limits())
    assert field in {violation.field for violation in found}
    assert len(found) <= MAX_METRICS + Limits().groups_per_run
    assert all(violation.message.isprintable() for violation in found)
    with pytest.raises(RefusedError) as refused:
        bench.create(**fields)
    assert refused.value.code in (Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED)
    assert not bench.engine.views


@given(st.text() | st.text(min_size=MAX_MESSAGE - 2, max_size=2 * MAX_MESSAGE))
def test_a_refusal_is_one_short_line(text: str) -> None:
    shown = RefusedError(Code.INVALID_ARGUMENT, text).message
    assert shown.isprintable()
    assert len(shown) <= MAX_MESSAGE * len(ascii("\U0010ffff"))
    if len(text) <= MAX_MESSAGE and text.isprintable():
        assert shown == text


def test_a_refusal_cannot_forge_a_line_of_a_log() -> None:
    forged = one_line("no run 'x\n2026-01-01 INFO stopped\x1b[31m'")
    assert forged == "no run 'x\\n2026-01-01 INFO stopped\\x1b[31m'"


def test_what_was_acknowledged_is_recovered_under_lower_limits(
    make_bench: Callable[..., Any], make_batch: Any, eventually: Any
) -> None:
    """Lowering a limit must not keep the server from starting."""
    bench = make_bench()
    bench.create()
    rank = bench.join(world_size=2)
    last = rank.observe(make_batch(1, n=64))
    eventually(lambda: rank.acked == last)
    bench.stop()
    bench.limits = Limits(samples_per_message=8)
    bench.start()
    bench.join(world_size=2, session="second").watermark(1)
    bench.join(1, world_size=2).watermark(1)
    eventually(lambda: bench.view().run.closed_step == 1)
    assert bench.view().windows["math"].metrics["window_samples"] == 64
