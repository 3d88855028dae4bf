"""Layouts that would be read wrongly are refused when attaching."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from pathwatch.integrations.capture import RouterRecorder
from pathwatch.integrations.deepspeed import Probe, ProbeGroup, attach
from pathwatch.integrations.deepspeed.place import engine_layout
from pathwatch.integrations.deepspeed.ulysses import check_evaluation
from pathwatch.integrations.observing import Job, Layout
from pathwatch.integrations.observing.agreement import Agreement
from pathwatch.integrations.observing.probe_reader import ProbeReader

TOKENS = torch.randint(16, (4, 6), generator=torch.Generator().manual_seed(1))
PROBE = Probe(groups={"a": ProbeGroup(inputs={"tokens": TOKENS}, sample_ids=torch.arange(4))})


def engine_with(mpu: object = None, **more: Any) -> Any:
    return SimpleNamespace(mpu=mpu, sequence_parallel_size=1, dp_world_size=1, **more)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"get_pipeline_model_parallel_world_size": 2}, "only a PipelineModule"),
        ({"get_virtual_pipeline_model_parallel_world_size": 2}, "interleaved"),
        ({"get_context_parallel_world_size": 2}, "context parallelism"),
    ],
)
def test_splits_that_are_not_read_are_named(
    deepspeed_world: None, told: dict[str, int], message: str
) -> None:
    one = {"get_tensor_model_parallel_world_size": 1, "get_pipeline_model_parallel_world_size": 1}
    mpu = SimpleNamespace(**{name: lambda value=value: value for name, value in (one | told).items()})
    with pytest.raises(ValueError, match=message):
        engine_layout(engine_with(mpu), 2)


def test_a_megatron_mpu_that_splits_nothing_is_read(deepspeed_world: None) -> None:
    """Virtual stages are None there where there are none."""
    mpu = SimpleNamespace(
        get_tensor_model_parallel_world_size=lambda: 1,
        get_pipeline_model_parallel_world_size=lambda: 1,
        get_virtual_pipeline_model_parallel_world_size=lambda: None,
    )
    assert engine_layout(engine_with(mpu), 2) == Layout(total_layers=2)


def test_replicas_must_be_as_many_as_deepspeed_counts(deepspeed_world: None) -> None:
    engine = engine_with()
    engine.dp_world_size = 2
    with pytest.raises(ValueError, match="2 data-parallel replicas"):
        engine_layout(engine, 2)


@pytest.fixture
def pipeline_of(deepspeed_world: None) -> Iterator[Callable[[list[Any]], Any]]:
    """An engine of a pipeline of one stage."""
    import deepspeed
    from deepspeed.pipe import PipelineModule
    from deepspeed.utils import groups

    def make(layers: list[Any]) -> Any:
        module = PipelineModule(layers, num_stages=1, loss_fn=lambda output, labels: output.square().mean())
        return deepspeed.initialize(
            model=module,
            optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
            config={"train_micro_batch_size_per_gpu": 4, "steps_per_print": 1 << 30},
        )[0]

    before = groups.mpu
    yield make
    groups.mpu = before


def moe() -> nn.Module:
    from deepspeed.moe.layer import MoE

    return MoE(12, nn.Linear(12, 12), num_experts=4, k=1)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.moe = moe()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.moe(x)[0]


def test_routed_layers_that_stages_share_are_refused(
    pipeline_of: Callable[[list[Any]], Any], streams: list[Any]
) -> None:
    from deepspeed.pipe import LayerSpec, TiedLayerSpec

    engine = pipeline_of([LayerSpec(nn.Embedding, 16, 12), TiedLayerSpec("block", Block), LayerSpec(Block)])
    with pytest.raises(ValueError, match="TiedLayerSpec"):
        attach(engine, run="r", probe=PROBE, strict=True)


def test_a_pipeline_of_one_stage_is_read_and_left_as_it_was(
    pipeline_of: Callable[[list[Any]], Any], streams: list[Any]
) -> None:
    from deepspeed.pipe import LayerSpec

    engine = pipeline_of([LayerSpec(nn.Embedding, 16, 12), LayerSpec(Block), LayerSpec(Block)])
    before = {
        name: value for name, value in engine.__dict__.items() if name not in ("fwd_outputs", "pipe_buffers")
    }
    loss_fn, offset = engine.module.loss_fn, engine.module.micro_offset
    train_batch = engine.train_batch
    with attach(engine, run="r", probe=PROBE, strict=True) as watch:
        watch.begin()
        assert engine.train_batch is not train_batch
    assert (engine.module.loss_fn, engine.module.micro_offset) == (loss_fn, offset)
    assert engine.train_batch == train_batch
    for name in ("batch_fn", "loss", "total_loss", "data_iterator", "training_dataloader", "monitor"):
        assert engine.__dict__[name] is before[name], name
    [observed] = streams[0].of("observe")
    assert observed["weights"].shape == (4, 2, 4)
    assert [one["gram_self"].shape for one in streams[0].of("geometry")] == [(2, 4, 4)]


def test_a_probe_that_runs_the_model_itself_cannot_run_a_pipeline() -> None:
    probe = Probe(groups=PROBE.groups, forward=lambda module, inputs: module(inputs["tokens"]))
    stage = Layout(layers=(0,), total_layers=2)
    with pytest.raises(ValueError, match="cannot run a pipeline"):
        ProbeReader(cast(Job, None), stage, RouterRecorder([]), probe, Agreement())


def test_attention_that_does_not_join_sequences_in_evaluation_is_refused() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def wrapped(uattn: object) -> Callable[..., object]:
        def attention(*args: object) -> object:
            return uattn

        return attention

    module = nn.Linear(1, 1)
    check_evaluation(module)
    module.config = SimpleNamespace(_attn_implementation="ulysses_of_test")
    check_evaluation(module)
    try:
        for off in (False, True):
            ALL_ATTENTION_FUNCTIONS["ulysses_of_test"] = wrapped(SimpleNamespace(disable_in_eval=off))
            if off:
                with pytest.raises(ValueError, match="disable_in_eval"):
                    check_evaluation(module)
            else:
                check_evaluation(module)
    finally:
        del ALL_ATTENTION_FUNCTIONS["ulysses_of_test"]
