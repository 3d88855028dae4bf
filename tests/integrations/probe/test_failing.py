"""A reading that does not fit says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pathwatch.integrations.deepspeed import Probe, ProbeGroup, attach

TOKENS = torch.randint(16, (6, 8), generator=torch.Generator().manual_seed(1))


def test_out_of_memory_names_the_batch_size(
    make_engine: Callable, streams: list, caplog: pytest.LogCaptureFixture
) -> None:
    def forward(module: Any, inputs: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine = make_engine()
    group = ProbeGroup(inputs={"tokens": TOKENS}, sample_ids=torch.arange(6))
    probe = Probe(groups={"a": group}, interval=1, batch_size=5, forward=forward)
    with attach(engine, run="r", probe=probe, check_interval=1):
        for _ in range(3):
            engine.backward(engine(TOKENS[:4]).square().mean())
            engine.step()
    assert engine.global_steps == 3
    assert "re-reading 5 probe samples of 8 tokens at once: give Probe(batch_size=...) a number below 5" in (
        caplog.text
    )
