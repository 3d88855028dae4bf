"""What a Lightning Trainer trains, as a watch sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from pathwatch.integrations.deepspeed import EngineJob
from pathwatch.integrations.observing import Job, Layout
from pathwatch.integrations.pytorch import ModuleJob, check_data_parallel

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def job_of(trainer: Trainer, model: nn.Module) -> Job:
    """The job of this process, once the strategy is set up; `model` is a part of the LightningModule."""
    if type(trainer.strategy).__name__ == "DeepSpeedStrategy":
        return DeepSpeedStrategyJob(trainer, model)
    return TrainerJob(trainer, model)


class TrainerJob(ModuleJob):
    """Implements `observing.Job` for every strategy but DeepSpeed's."""

    def __init__(self, trainer: Trainer, model: nn.Module) -> None:
        super().__init__(model, lambda: int(trainer.global_step))
        self._trainer = trainer

    def layout(self, routers: int) -> Layout:
        """Data parallel: every rank holds all layers and its own samples.

        Raises:
            ValueError: the strategy splits the module in another way, too.
        """
        layout = super().layout(routers)
        check_data_parallel(self._trainer.strategy.model, layout.world_size)
        return layout

    def forward(self, inputs: Mapping[str, Tensor]) -> object:
        """The model's forward pass in the Trainer's precision, past the strategy's wrapper."""
        with self._trainer.precision_plugin.val_step_context():
            return super().forward(inputs)


class DeepSpeedStrategyJob(EngineJob):
    """Implements `observing.Job` over the engine within Lightning's strategy."""

    def __init__(self, trainer: Trainer, model: nn.Module) -> None:
        super().__init__(trainer.strategy.model)
        self._trainer = trainer
        self._model = model

    @property
    def module(self) -> nn.Module:
        """The model within the LightningModule within the engine."""
        return self._model

    @property
    def step(self) -> int:
        """Optimizer steps done, as the Trainer counts them."""
        return int(self._trainer.global_step)

    def forward(self, inputs: Mapping[str, Tensor]) -> object:
        """The model's own forward pass: the engine's would be a training step."""
        with self._trainer.precision_plugin.val_step_context():
            return self._model(**inputs)
