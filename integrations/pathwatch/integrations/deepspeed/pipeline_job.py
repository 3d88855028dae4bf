"""A pipeline engine as a watch sees it: each process holds some of the layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from pathwatch.integrations.capture import NoRoutersError, Router, find_routers
from pathwatch.integrations.deepspeed.engine_job import EngineJob
from pathwatch.integrations.deepspeed.place import is_pipeline
from pathwatch.integrations.observing import Layout

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine
    from deepspeed.runtime.pipe.engine import PipelineEngine

_ABSENT = object()


class PipelineJob(EngineJob):
    """Implements `observing.Job` over an engine of a `PipelineModule`."""

    def __init__(self, engine: PipelineEngine) -> None:
        super().__init__(engine)
        self._pipeline = engine

    def layout(self, routers: int) -> Layout:
        """This stage's layers among all. Collective.

        Raises:
            ValueError: a layout that would be read wrongly; on every process alike.
        """
        layout = super().layout(routers)
        tied = torch.tensor([int(self._has_tied_routers())], device=self.device)
        dist.all_reduce(tied)
        if tied.item():
            raise ValueError(
                "a TiedLayerSpec holds routed layers: they stand in several places of the pipeline, which "
                "cannot be told apart; use LayerSpec for MoE layers"
            )
        return layout

    def forward(self, inputs: Mapping[str, Tensor]) -> object:
        """Output of the last stage; None on the others.

        One micro-batch through `eval_batch`. The first layer is given the inputs in their order: a tensor if
        there is only one, else a tuple.
        """
        engine = self._pipeline
        tensors = tuple(inputs.values())
        outputs: list[object] = []

        def keep(output: object, labels: object) -> Tensor:
            # Training's own loss function wants labels, and what it says would enter the engine's monitor.
            outputs.append(output)
            return torch.zeros((), device=self.device)

        with (
            _kept(
                engine,
                batch_fn=None,
                total_loss=None,
                total_additional_losses=None,
                loss=engine.loss,
                fwd_outputs=[],
                data_iterator=engine.data_iterator,
                training_dataloader=engine.training_dataloader,
            ),
            _kept(engine.module, loss_fn=keep, micro_offset=engine.module.micro_offset),
            _kept(engine.monitor, enabled=False),
        ):
            # The probe's shape is not that of training: both must be told to the next stage anew.
            engine.reset_activation_shape()
            engine.eval_batch(
                iter([(tensors[0] if len(tensors) == 1 else tensors, ())]),
                reduce_output=None,
                bcast_loss=False,
                num_micro_batches=1,
            )
            engine.reset_activation_shape()
        return outputs[0] if outputs else None

    def router_matrices(self, routers: Sequence[Router]) -> list[Tensor]:
        """On rank 0 the weights of all stages; elsewhere this stage's. Collective, on the device."""
        own = super().router_matrices(routers)
        group = self._pipeline.grid.get_pipe_parallel_group()
        ranks = dist.get_process_group_ranks(group)
        if ranks[0] != 0:
            return own
        shape = torch.tensor([len(own), *(own[0].shape if own else (0, 0))], device=self.device)
        shapes = [torch.empty_like(shape) for _ in ranks]
        dist.all_gather(shapes, shape, group=group)
        counts, rows, columns = torch.stack(shapes).T.tolist()
        stacked = torch.zeros(max(counts), max(rows), max(columns), device=self.device)
        for place, matrix in zip(stacked, own, strict=False):
            place.copy_(matrix)
        gathered = [torch.empty_like(stacked) for _ in ranks] if dist.get_rank() == 0 else None
        dist.gather(stacked, gathered, dst=0, group=group)
        if gathered is None:
            return own
        return [matrix for held, count in zip(gathered, counts, strict=True) for matrix in held[:count]]

    def _has_tied_routers(self) -> bool:
        try:
            return bool(find_routers(self._pipeline.module.tied_modules))
        except NoRoutersError:
            return False


def job_of(engine: DeepSpeedEngine) -> EngineJob:
    """The job of an engine, whichever kind it is."""
    return PipelineJob(engine) if is_pipeline(engine) else EngineJob(engine)


@contextmanager
def _kept(target: Any, **values: object) -> Iterator[None]:
    """Give an object these attributes for a while; on exit they are as they were before."""
    before = {name: target.__dict__.get(name, _ABSENT) for name in values}
    target.__dict__.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is _ABSENT:
                del target.__dict__[name]
            else:
                target.__dict__[name] = value
