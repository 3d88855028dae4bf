"""Lightning, watched by pathwatch.

python examples/frameworks/train_lightning.py --run-name lightning --server 127.0.0.1:50051
"""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny_task import BATCH, LEARNING_RATE, Sequences, arguments, make_model, make_probe
from torch import Tensor
from torch.utils.data import DataLoader

from pathwatch.integrations.lightning import PathwatchCallback


class Sorting(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = make_model()

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        loss: Tensor = self.model(**batch).loss
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=LEARNING_RATE)


def main() -> None:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    data = Sequences()
    pathwatch = PathwatchCallback(
        run=args.run, server=args.server, probe=make_probe(data, interval=args.probe_interval)
    )
    saving = ModelCheckpoint(dirpath=args.out, every_n_train_steps=100, save_top_k=-1)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=args.steps,
        callbacks=[pathwatch, saving],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(data, BATCH, shuffle=True, drop_last=True)
    trainer.fit(Sorting(), loader, ckpt_path=args.resume)
    print(f"ended at step {trainer.global_step}, best checkpoint: {pathwatch.best_checkpoint}")


if __name__ == "__main__":
    main()
