"""DeepSpeed's own measurements are of training, with a probe as without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from deepspeed.utils.timer import FORWARD_GLOBAL_TIMER, FORWARD_MICRO_TIMER

from pathwatch.integrations.deepspeed import Probe, ProbeGroup, attach

TOKENS = torch.randint(16, (4, 6), generator=torch.Generator().manual_seed(1))


def test_clocks_and_profiler_do_not_count_readings(
    make_engine: Callable, streams: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(
        wall_clock_breakdown=True,
        flops_profiler={"enabled": True, "profile_step": 2, "output_file": "/dev/null"},
    )
    started: list[str] = []

    def note(owner: Any, method: str, name: str) -> None:
        wrapped = getattr(owner, method)

        def noted(*args: Any, **kwargs: Any) -> Any:
            started.append(name)
            return wrapped(*args, **kwargs)

        monkeypatch.setattr(owner, method, noted)

    note(engine.timers(FORWARD_MICRO_TIMER), "start", "micro")
    note(engine.timers(FORWARD_GLOBAL_TIMER), "start", "global")
    note(engine.tput_timer, "start", "throughput")
    note(engine.flops_profiler, "start_profile", "flops")
    group = ProbeGroup(inputs={"tokens": TOKENS}, sample_ids=torch.arange(4))
    with attach(engine, run="r", probe=Probe(groups={"a": group}, interval=1, shift_labels=False)):
        for _ in range(3):
            engine.backward(engine(TOKENS).square().mean())
            engine.step()
    assert [event["step"] for event in streams[0].of("watermark")] == [0, 1, 2, 3]
    assert {name: started.count(name) for name in ("micro", "global", "throughput", "flops")} == {
        "micro": 3,
        "global": 3,
        "throughput": 3,
        "flops": 1,
    }
