"""Lightning's DeepSpeed strategy. It asks for CUDA, which is patched away: everything else is real."""

from __future__ import annotations

from collections.abc import Callable

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import deepspeed as strategy
from torch.utils.data import DataLoader

from pathwatch.integrations.lightning import PathwatchCallback, Probe, ProbeGroup

TOKENS = torch.randint(16, (16, 6), generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
def test_the_engine_within_is_read(
    deepspeed_world: None,
    make_torch_moe: Callable,
    streams: list,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(strategy, "CUDAAccelerator", CPUAccelerator)
    monkeypatch.setattr(strategy, "_validate_device_index_selection", lambda devices: None)
    monkeypatch.setattr(strategy.DeepSpeedStrategy, "root_device", torch.device("cpu", 0))
    # Lightning takes it out of the environment.
    monkeypatch.setenv("WORLD_SIZE", "1")

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = make_torch_moe()

        def training_step(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.model(tokens).float().square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=1e-2)

    group = ProbeGroup(inputs={"tokens": TOKENS[:5]}, sample_ids=torch.arange(5), labels=TOKENS[:5])
    probe = Probe(groups={"a": group}, interval=2, shift_labels=False)
    trainer = pl.Trainer(
        strategy=strategy.DeepSpeedStrategy(stage=1, process_group_backend="gloo"),
        accelerator="cpu",
        devices=1,
        max_steps=4,
        callbacks=[PathwatchCallback(run="r", probe=probe)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Module()
    trainer.fit(module, DataLoader(TOKENS, batch_size=4))
    assert type(trainer.strategy.model).__name__ == "DeepSpeedEngine"
    (stream,) = streams
    assert [event["step"] for event in stream.of("watermark")] == [0, 2, 4]
    assert [event["sample_ids"].tolist() for event in stream.of("observe")] == [[0, 1, 2, 3, 4]] * 3
    gates = torch.stack([layer.gate.weight.detach().float() for layer in module.model.layers])
    torch.testing.assert_close(
        torch.as_tensor(stream.of("geometry")[-1]["gram_self"]), gates @ gates.mT, atol=1e-4, rtol=1e-4
    )
