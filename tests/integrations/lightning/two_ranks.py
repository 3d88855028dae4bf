"""One of two ranks, run by test_two_ranks.py: `pytorch_lightning` with DDP, watched and not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from conftest import KeptStream, TorchMoe
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from pathwatch.integrations.lightning import PathwatchCallback, Probe, ProbeGroup
from pathwatch.integrations.observing import observer
from pathwatch.v1 import signal_pb2

TOKENS = torch.randint(16, (80, 6), generator=torch.Generator().manual_seed(1))
PROBE = Probe(
    groups={"a": ProbeGroup(inputs={"tokens": TOKENS[:7]}, sample_ids=torch.arange(7), labels=TOKENS[:7])},
    interval=5,
    batch_size=2,
    shift_labels=False,
)
STREAMS: list[KeptStream] = []


class Stream(KeptStream):
    """Asks for a checkpoint, then for a stop, as training goes on."""

    def watermark(self, step: int) -> None:
        super().watermark(step)
        if self.settings["rank"] == 0:
            self.signal = (
                signal_pb2.Signal(step=0, action=signal_pb2.ACTION_CHECKPOINT)
                if step == 0
                else signal_pb2.Signal(step=step, action=signal_pb2.ACTION_STOP, stop_at_step=15)
            )


def open_stream(server: str, **settings: Any) -> KeptStream:
    STREAMS.append(Stream(settings))
    return STREAMS[-1]


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = TorchMoe()
        self.losses: list[float] = []

    def training_step(self, tokens: torch.Tensor) -> torch.Tensor:
        loss = cross_entropy(self.model(tokens).flatten(0, 1), tokens.flatten())
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def fit(root: Path, *callbacks: pl.Callback, steps: int) -> Module:
    module = Module()
    trainer = pl.Trainer(
        accelerator="cpu",
        strategy="ddp",
        devices=2,
        max_steps=steps,
        callbacks=list(callbacks),
        default_root_dir=root,
        logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    torch.manual_seed(trainer.global_rank)
    trainer.fit(module, DataLoader(TOKENS, batch_size=4))
    return module


def main(out: Path) -> None:
    torch.set_num_threads(1)
    observer.RoutingStream = open_stream
    plain = fit(out.parent, steps=15)
    saving = ModelCheckpoint(dirpath=out.parent / "saved", every_n_train_steps=10, save_top_k=-1)
    callback = PathwatchCallback(run="r", probe=PROBE, check_interval=3)
    watched = fit(out.parent, callback, saving, steps=30)
    (stream,) = STREAMS
    last = [event for event in stream.of("observe") if event["step"] == 15]
    out.write_text(
        json.dumps(
            {
                "plain": plain.losses,
                "watched": watched.losses,
                "stopped_at": watched.trainer.global_step,
                "watermarks": [event["step"] for event in stream.of("watermark")],
                "sample_ids": [i for event in last for i in event["sample_ids"].tolist()],
                "checkpoints": [(event["step"], event["tag"]) for event in stream.of("checkpoint")],
                "settings": {name: stream.settings[name] for name in ("rank", "world_size", "watch")},
                "flavour": [name for name in ("lightning", "pytorch_lightning") if name in sys.modules],
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
